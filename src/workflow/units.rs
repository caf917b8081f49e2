//! Durations and sizes as people write them.

use std::time::Duration;

/// `90s`, `2h 30m`: a duration. The error says what to write.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|error| {
        format!(
            "{error}; write a number with a unit, such as \"30s\", \"5m\", \"2h\" or \"1d 12h\""
        )
    })
}

/// `4GiB`, `500MB`: a size in bytes. The error says what to write.
pub(super) fn size(text: &str) -> Result<u64, String> {
    const HELP: &str = "write a number with a unit, such as \"500MB\", \"4GiB\" or \"1.5GiB\"";
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit = unit.trim();
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "" => return Err(format!("the unit is missing; {HELP}")),
        "k" | "m" | "g" | "t" => {
            let unit = unit.to_uppercase();
            return Err(format!(
                "the unit `{unit}` may mean two things; write \"{number}{unit}iB\" (powers of 1024) \
                 or \"{number}{unit}B\" (powers of 1000)"
            ));
        }
        _ => return Err(format!("`{unit}` is not a unit of size; {HELP}")),
    };
    scaled(&number.replace('_', ""), factor).ok_or_else(|| format!("not a size; {HELP}"))
}

/// A decimal number times a factor, in whole numbers, since floating point loses bytes.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 {
        return None;
    }
    let bytes = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if fraction.is_empty() {
        return (!number.ends_with('.')).then_some(bytes);
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction.parse::<u128>().ok()? * u128::from(factor) / scale;
    bytes.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("4GiB"), Ok(4 << 30));
        assert_eq!(size("1.5 KiB"), Ok(1536));
        assert_eq!(size("500mb"), Ok(500_000_000));
        assert_eq!(size("1_000 B"), Ok(1000));
        for bad in ["", "4", "4G", "GiB", "-4GiB", "4.GiB", ".5GiB", "4 parsecs", "99999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("2h 30m"), Ok(Duration::from_mins(150)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "5", "h", "5 fortnights", "-3s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
