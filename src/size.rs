//! Sizes and rates as people write them.

/// `20GiB`, `1.5 GB`, `500M` (as MiB), `1024`: bytes.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (power, base) = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => (0, 1024_u64),
        "k" | "kib" => (1, 1024),
        "m" | "mib" => (2, 1024),
        "g" | "gib" => (3, 1024),
        "t" | "tib" => (4, 1024),
        "kb" => (1, 1000),
        "mb" => (2, 1000),
        "gb" => (3, 1000),
        "tb" => (4, 1000),
        _ => return None,
    };
    let factor = base.pow(power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let (whole, part) = number.split_once('.')?;
    let whole: u64 = whole.parse().ok()?;
    let digits = u32::try_from(part.len()).ok().filter(|digits| *digits <= 9)?;
    let part: u64 = part.parse().ok()?;
    let fraction = u128::from(part) * u128::from(factor) / 10_u128.pow(digits);
    whole.checked_mul(factor)?.checked_add(u64::try_from(fraction).ok()?)
}

/// `10MB/s`: bytes per second.
pub(crate) fn parse_rate(text: &str) -> Option<u64> {
    let text = text.trim();
    let size = text.strip_suffix("/s").or_else(|| text.strip_suffix("ps"))?;
    parse_size(size).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates_are_read() {
        assert_eq!(parse_size("20GiB"), Some(20 << 30));
        assert_eq!(parse_size("1.5 GB"), Some(1_500_000_000));
        assert_eq!(parse_size("500M"), Some(500 << 20));
        assert_eq!(parse_size("2k"), Some(2048));
        assert_eq!(parse_size("0"), Some(0));
        for bad in ["", "GiB", "-1", "1.2.3", "12 parsecs", "99999999999999TiB", "1."] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        assert_eq!(parse_rate("10MB/s"), Some(10_000_000));
        assert_eq!(parse_rate("10MB"), None);
        assert_eq!(parse_rate("0/s"), None);
    }
}
