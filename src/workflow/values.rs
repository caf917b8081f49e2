//! The values of a variable of `foreach`: from the file itself, tables, globs, ranges, and outputs
//! of other tasks.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::GlobBuilder;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::declaration::{Item, Row, Scalar};
use super::foreach::INSTANCES_MAX;

/// The items of a range.
pub(super) fn range(start: i64, end: i64, step: i64) -> Result<Vec<Item>, String> {
    let distance = if step > 0 { end.saturating_sub(start) } else { start.saturating_sub(end) };
    let count = u64::try_from(distance).unwrap_or(0).div_ceil(step.unsigned_abs());
    if usize::try_from(count).map_or(true, |count| count > INSTANCES_MAX) {
        return Err(format!("this range has {count} numbers; at most {INSTANCES_MAX} are allowed"));
    }
    let mut items = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    let mut number = start;
    for _ in 0..count {
        items.push(Item::Scalar(Scalar::Integer(number)));
        number = number.saturating_add(step);
    }
    Ok(items)
}

/// The rows of a table with a header.
pub(super) fn table(bytes: &[u8], delimiter: u8) -> Result<Vec<Item>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(bytes);
    let columns: Arc<[Arc<str>]> =
        reader.headers().map_err(|error| table_error(&error))?.iter().map(Arc::from).collect();
    if columns.is_empty() {
        return Err("it is empty; the first line must name the columns".to_owned());
    }
    for (at, column) in columns.iter().enumerate() {
        if column.is_empty() {
            return Err(format!("column {} has no name in the first line", at + 1));
        }
        if columns.iter().take(at).any(|other| other == column) {
            return Err(format!("two columns are called {column:?}"));
        }
    }
    let mut items = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| table_error(&error))?;
        let cells = record.iter().map(|cell| Scalar::Text(cell.into())).collect();
        items.push(Item::Row(Arc::new(Row { columns: columns.clone(), cells })));
    }
    Ok(items)
}

fn table_error(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!("line {line} has {len} fields, the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { pos, .. } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!("line {line} is not UTF-8 text")
        }
        _ => error.to_string(),
    }
}

/// The lines of a text, without empty ones.
pub(super) fn lines(bytes: &[u8]) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line)
            .map_err(|error| format!("line {} is not UTF-8 text: {error}", at + 1))?;
        if !text.is_empty() {
            items.push(Item::Scalar(Scalar::Text(text.into())));
        }
    }
    Ok(items)
}

/// The items of a JSON array of plain values or flat objects.
pub(super) fn json(bytes: &[u8]) -> Result<Vec<Item>, String> {
    serde_json::from_slice(bytes)
        .map_err(|error| format!("it is not a JSON array of plain values or flat objects: {error}"))
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number, true, false or a flat object")
    }

    fn visit_str<E>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Scalar(Scalar::Text(text.into())))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Item, E> {
        Ok(Item::Scalar(Scalar::Bool(value)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Item, E> {
        Ok(Item::Scalar(Scalar::Integer(number)))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Item, E> {
        let number = i64::try_from(number).map_err(E::custom)?;
        Ok(Item::Scalar(Scalar::Integer(number)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Item, E> {
        Ok(Item::Scalar(Scalar::Float(number)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
        let (mut columns, mut cells) = (Vec::new(), Vec::new());
        while let Some((column, cell)) = map.next_entry::<String, Option<Item>>()? {
            columns.push(Arc::from(column));
            cells.push(match cell {
                None => Scalar::Null,
                Some(Item::Scalar(scalar)) => scalar,
                Some(_) => return Err(serde::de::Error::custom("an object inside an object")),
            });
        }
        Ok(Item::Row(Arc::new(Row { columns: columns.into(), cells })))
    }
}

/// The paths below `project` that match a pattern, sorted.
pub(super) fn glob(project: &Path, pattern: &str) -> Result<Vec<Item>, String> {
    let matcher = GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|error| format!("this pattern cannot be read: {}", error.kind()))?
        .compile_matcher();
    let base: PathBuf = pattern
        .split('/')
        .take_while(|part| !part.contains(['*', '?', '[', '{']))
        .collect::<Vec<_>>()
        .join("/")
        .into();
    // A pattern without wildcards is its own base; what it may match is one name.
    let base = if base.as_os_str() == pattern {
        base.parent().map(Path::to_owned).unwrap_or_default()
    } else {
        base
    };
    let base =
        if pattern.starts_with('/') && base.as_os_str().is_empty() { "/".into() } else { base };
    let hidden = pattern.split('/').any(|part| part.starts_with('.'));
    let below = pattern.split('/').count().saturating_sub(base.components().count()).max(1);
    let depth = if pattern.contains("**") { usize::MAX } else { below };
    let start = project.join(&base);
    let walk =
        walkdir::WalkDir::new(&start).min_depth(1).max_depth(depth).into_iter().filter_entry(
            |entry| {
                let name = entry.file_name().as_encoded_bytes();
                entry.depth() == 0 || hidden || !name.starts_with(b".")
            },
        );
    if !start.exists() {
        return Ok(Vec::new());
    }
    let mut found: Vec<String> = Vec::new();
    for entry in walk {
        let entry = entry.map_err(|error| error.to_string())?;
        let below = entry.path().strip_prefix(&start).map_err(|error| error.to_string())?;
        let path = base.join(below);
        if matcher.is_match(&path) {
            let Some(text) = path.to_str() else {
                return Err(format!(
                    "it matches {}, a name that is not UTF-8; rename that file",
                    path.display()
                ));
            };
            found.push(text.to_owned());
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|path| Item::Path(path.into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(items: Result<Vec<Item>, String>) -> Result<Vec<String>, String> {
        let cell = |row: &Row, at: usize| format!("{}={}", row.columns[at], row.cells[at]);
        Ok(items?
            .iter()
            .map(|item| match item {
                Item::Scalar(scalar) => scalar.to_string(),
                Item::Path(path) => path.to_string(),
                Item::Row(row) => {
                    (0..row.cells.len()).map(|at| cell(row, at)).collect::<Vec<_>>().join(" ")
                }
            })
            .collect())
    }

    #[test]
    fn ranges_go_both_ways() {
        assert_eq!(shown(range(0, 3, 1)).unwrap(), ["0", "1", "2"]);
        assert_eq!(shown(range(0, 10, 4)).unwrap(), ["0", "4", "8"]);
        assert_eq!(shown(range(3, 0, -2)).unwrap(), ["3", "1"]);
        assert_eq!(shown(range(3, 0, 1)).unwrap(), [""; 0]);
        assert!(range(0, i64::MAX, 1).is_err());
    }

    #[test]
    fn tables_have_headers() {
        assert_eq!(shown(table(b"\xef\xbb\xbfa,b\n1,\"x, y\"\n", b',')).unwrap(), ["a=1 b=x, y"]);
        assert_eq!(shown(table(b"a\tb\r\n1\t2\r\n", b'\t')).unwrap(), ["a=1 b=2"]);
        let error = |bytes| shown(table(bytes, b',')).unwrap_err();
        assert!(error(b"").contains("empty"));
        assert!(error(b"a,a\n").contains("two columns"));
        assert!(error(b"a,\n").contains("no name"));
        assert!(error(b"a,b\n1\n").contains("line 2 has 1 fields, the header has 2"));
        assert!(error(b"a,b\n1,\xff\n").contains("line 2 is not UTF-8"));
    }

    #[test]
    fn outputs_are_lines_or_json() {
        assert_eq!(shown(lines(b"a\n\nb c\r\n")).unwrap(), ["a", "b c"]);
        assert!(lines(b"a\n\xff").unwrap_err().contains("line 2"));
        let items = shown(json(br#"["a", 1, 1.5, true, {"z": 1, "a": null}]"#)).unwrap();
        assert_eq!(items, ["a", "1", "1.5", "true", "z=1 a=null"]);
        for bad in ["{}", "[[1]]", "[null]", "[{\"a\": {}}]", "[", "[18446744073709551615]"] {
            assert!(json(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn globs_are_sorted_and_do_not_show_hidden_files() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir_all(root.join("reads/deep")).unwrap();
        for name in ["reads/b.fq", "reads/a.fq", "reads/.c.fq", "reads/d.txt", "reads/deep/e.fq"] {
            std::fs::write(root.join(name), "").unwrap();
        }
        let glob = |pattern: &str| shown(glob(root, pattern)).unwrap();
        assert_eq!(glob("reads/*.fq"), ["reads/a.fq", "reads/b.fq"]);
        assert_eq!(glob("reads/**/*.fq"), ["reads/a.fq", "reads/b.fq", "reads/deep/e.fq"]);
        assert_eq!(glob("*/.c.fq"), ["reads/.c.fq"]);
        assert_eq!(glob("reads/d.txt"), ["reads/d.txt"]);
        assert_eq!(glob("reads/{a,b}.fq"), ["reads/a.fq", "reads/b.fq"]);
        assert_eq!(glob("gone/*"), [""; 0]);
        let absolute = format!("{}/reads/*.txt", root.display());
        assert_eq!(glob(&absolute), [format!("{}/reads/d.txt", root.display())]);
    }
}
