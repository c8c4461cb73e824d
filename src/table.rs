//! Plain columns in memory, Parquet at the border: the only file of the library that names polars.

use std::fs::File;
use std::path::Path;

use polars::prelude::{
    AnyValue, ArrowDataType, Column as PolarsColumn, DataFrame, DataType, NamedFrom,
    ParquetCompression, ParquetReader, ParquetWriter, SerReader, Series,
};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};
use crate::files;

/// One typed column.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Counts and indices.
    Count(Vec<u32>),
    /// Measured values.
    Number(Vec<f64>),
    /// Names.
    Text(Vec<String>),
}

impl Column {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Count(v) => v.len(),
            Self::Number(v) => v.len(),
            Self::Text(v) => v.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Named columns of equal length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    columns: Vec<(String, Column)>,
}

impl Table {
    /// Without a column.
    pub const fn new() -> Self {
        Self {
            columns: Vec::new(),
        }
    }

    /// Adds a column at the right.
    ///
    /// Panics: never; a column of another length is refused when the table is written.
    pub fn push(&mut self, name: impl Into<String>, column: Column) {
        self.columns.push((name.into(), column));
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |(_, c)| c.len())
    }

    /// Column names from left to right.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(n, _)| n.as_str())
    }

    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(n, _)| n == name).map(|(_, c)| c)
    }

    /// A numeric column as floats.
    ///
    /// Errors: [`Error::UnknownName`], listing the numeric columns there are.
    pub fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        match self.column(name) {
            Some(Column::Count(v)) => Ok(v.iter().map(|&x| f64::from(x)).collect()),
            Some(Column::Number(v)) => Ok(v.clone()),
            _ => Err(self.unknown_column(name)),
        }
    }

    /// An integer column.
    ///
    /// Errors: [`Error::UnknownName`].
    pub fn counts(&self, name: &str) -> Result<&[u32]> {
        match self.column(name) {
            Some(Column::Count(v)) => Ok(v),
            _ => Err(self.unknown_column(name)),
        }
    }

    /// A text column.
    ///
    /// Errors: [`Error::UnknownName`].
    pub fn texts(&self, name: &str) -> Result<&[String]> {
        match self.column(name) {
            Some(Column::Text(v)) => Ok(v),
            _ => Err(self.unknown_column(name)),
        }
    }

    fn unknown_column(&self, name: &str) -> Error {
        Error::unknown("column", name, self.names())
    }

    /// Appends the rows of `other`, which must have the same columns.
    ///
    /// Errors: [`Error::Invalid`] naming the first column that differs.
    pub fn append(&mut self, other: Self) -> Result<()> {
        if self.columns.is_empty() {
            *self = other;
            return Ok(());
        }
        if self.columns.len() != other.columns.len() {
            let bound = format!("{} are expected", self.columns.len());
            return Err(Error::invalid(
                "number of columns",
                other.columns.len(),
                bound,
            ));
        }
        for ((name, mine), (other_name, theirs)) in self.columns.iter_mut().zip(other.columns) {
            match (*name == other_name, mine, theirs) {
                (true, Column::Count(a), Column::Count(b)) => a.extend(b),
                (true, Column::Number(a), Column::Number(b)) => a.extend(b),
                (true, Column::Text(a), Column::Text(b)) => a.extend(b),
                _ => {
                    let bound = format!("{name} of the same type is expected");
                    return Err(Error::invalid("column", other_name, bound));
                }
            }
        }
        Ok(())
    }

    /// Writes the table as Parquet (zstd), beside the target first and renamed into place.
    ///
    /// Errors: [`Error::Table`], [`Error::Io`]; the old file, if any, is then untouched.
    pub fn write(&self, path: &Path) -> Result<()> {
        let table_error = of_file(path);
        let series = |(name, column): &(String, Column)| -> PolarsColumn {
            let name = name.as_str().into();
            match column {
                // Signed, since users subtract columns and unsigned differences wrap.
                Column::Count(v) => {
                    let signed: Vec<i32> = v.iter().map(|&n| n as i32).collect();
                    Series::new(name, signed).into()
                }
                Column::Number(v) => Series::new(name, v).into(),
                Column::Text(v) => Series::new(name, v).into(),
            }
        };
        let columns = self.columns.iter().map(series).collect();
        let mut frame = DataFrame::new(self.rows(), columns).map_err(table_error)?;
        // Into memory first: the writer would hide a full disk behind an error of its own.
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes)
            .with_compression(ParquetCompression::Zstd(None))
            .finish(&mut frame)
            .map_err(table_error)?;
        files::replace_with(path, &bytes)
    }

    /// Reads a Parquet file of 32-bit or 64-bit integers, floats and strings.
    ///
    /// Errors: [`Error::Io`], [`Error::Table`] for what is not Parquet, [`Error::Format`] for a null.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let table_error = of_file(path);
        let frame = ParquetReader::new(file).finish().map_err(table_error)?;
        let mut table = Self::default();
        for column in frame.columns() {
            let name = column.name().as_str();
            if column.null_count() > 0 {
                let problem = format!("column {name} holds missing values");
                return Err(Error::format(path, problem));
            }
            table.push(name, read_column(column).map_err(table_error)?);
        }
        Ok(table)
    }
}

/// Columns under construction: values are pushed by name, row by row.
///
/// The first value of a name says where its column stands and of which type it is.
#[derive(Debug, Default)]
pub struct Rows {
    table: Table,
}

impl Rows {
    /// No row yet, of columns that are there even if none comes.
    pub fn of_columns<const N: usize>(columns: [(&str, Column); N]) -> Self {
        let mut table = Table::new();
        for (name, empty) in columns {
            table.push(name, empty);
        }
        Self { table }
    }

    fn column(&mut self, name: String, empty: Column) -> &mut Column {
        let columns = &mut self.table.columns;
        let at = columns.iter().position(|(n, _)| *n == name);
        let at = at.unwrap_or_else(|| {
            columns.push((name, empty));
            columns.len() - 1
        });
        &mut columns[at].1
    }

    /// Adds a count or an index.
    pub fn count(&mut self, name: impl Into<String>, value: usize) {
        if let Column::Count(v) = self.column(name.into(), Column::Count(Vec::new())) {
            v.push(value as u32);
        }
    }

    /// Adds a measured value.
    pub fn number(&mut self, name: impl Into<String>, value: f64) {
        if let Column::Number(v) = self.column(name.into(), Column::Number(Vec::new())) {
            v.push(value);
        }
    }

    /// Adds a name.
    pub fn text(&mut self, name: impl Into<String>, value: &str) {
        if let Column::Text(v) = self.column(name.into(), Column::Text(Vec::new())) {
            v.push(value.to_owned());
        }
    }

    /// The table.
    pub fn finish(self) -> Table {
        self.table
    }
}

/// An error about a file.
fn of_file(path: &Path) -> impl Fn(polars::error::PolarsError) -> Error + Copy {
    move |source| Error::Table {
        path: path.to_owned(),
        source,
    }
}

fn read_column(column: &PolarsColumn) -> polars::error::PolarsResult<Column> {
    Ok(match column.dtype() {
        DataType::String => {
            let text = column.str()?;
            Column::Text(text.iter().flatten().map(str::to_owned).collect())
        }
        DataType::Int32 if column.i32()?.iter().flatten().all(|n| n >= 0) => {
            Column::Count(column.i32()?.iter().flatten().map(|n| n as u32).collect())
        }
        _ => {
            let numbers = column.cast(&DataType::Float64)?;
            Column::Number(numbers.f64()?.iter().flatten().collect())
        }
    })
}

/// Reads a Parquet file of any plain columns as one JSON object a row.
///
/// Text, integers, floats, booleans and lists of them (of any depth) are understood; a missing
/// value becomes `null`.
///
/// Errors: [`Error::Io`], [`Error::Table`] for what is not Parquet, [`Error::Unsupported`] for a
/// column of another type (structures, dates).
pub fn read_json_rows(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let table_error = of_file(path);
    let mut reader = ParquetReader::new(file);
    // Polars built without a type's feature panics on it, so the schema is checked first.
    for field in reader.schema().map_err(table_error)?.iter_values() {
        if !is_plain(&field.dtype) {
            let (kind, name) = (type_name(&field.dtype), &field.name);
            return Err(Error::Unsupported {
                what: "Parquet column type",
                found: format!("{kind} of column {name} in {}", path.display()),
                supported: "text, integers of 32 or 64 bits, floats, booleans and lists of them; \
                            drop the column or convert it"
                    .to_owned(),
            });
        }
    }
    let frame = reader.finish().map_err(table_error)?;
    let mut rows = vec![Map::new(); frame.height()];
    for column in frame.columns() {
        for (index, row) in rows.iter_mut().enumerate() {
            let value = column.get(index).and_then(|value| json_value(&value));
            row.insert(column.name().to_string(), value.map_err(table_error)?);
        }
    }
    Ok(rows)
}

/// A type without its parameters, which for a structure fill a screen.
fn type_name(dtype: &ArrowDataType) -> String {
    let text = format!("{dtype:?}");
    text.split('(').next().unwrap_or_default().to_owned()
}

fn is_plain(dtype: &ArrowDataType) -> bool {
    use ArrowDataType as T;
    match dtype {
        T::List(item) | T::LargeList(item) => is_plain(&item.dtype),
        T::Null | T::Boolean | T::Utf8 | T::LargeUtf8 | T::Utf8View => true,
        T::Int32 | T::Int64 | T::UInt32 | T::UInt64 | T::Float32 | T::Float64 => true,
        _ => false,
    }
}

fn json_value(value: &AnyValue<'_>) -> polars::error::PolarsResult<Value> {
    Ok(match value {
        AnyValue::Null => Value::Null,
        AnyValue::Boolean(b) => Value::Bool(*b),
        AnyValue::String(text) => Value::String((*text).to_owned()),
        AnyValue::StringOwned(text) => Value::String(text.to_string()),
        AnyValue::UInt32(n) => Value::from(*n),
        AnyValue::UInt64(n) => Value::from(*n),
        AnyValue::Int32(n) => Value::from(*n),
        AnyValue::Int64(n) => Value::from(*n),
        AnyValue::Float32(x) => Number::from_f64(f64::from(*x)).map_or(Value::Null, Value::Number),
        AnyValue::Float64(x) => Number::from_f64(*x).map_or(Value::Null, Value::Number),
        AnyValue::List(series) => {
            let items = (0..series.len()).map(|i| json_value(&series.get(i)?));
            Value::Array(items.collect::<polars::error::PolarsResult<_>>()?)
        }
        other => {
            let reason = format!("a value of type {} has no JSON form", other.dtype());
            return Err(polars::error::PolarsError::SchemaMismatch(reason.into()));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parquet(columns: Vec<PolarsColumn>, rows: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut frame = DataFrame::new(rows, columns).unwrap();
        ParquetWriter::new(file.reopen().unwrap())
            .finish(&mut frame)
            .unwrap();
        file
    }

    #[test]
    fn rows_become_objects_with_their_lists() {
        let answers: Series = Series::new(
            "answers".into(),
            &[
                Series::new("".into(), &["blue", "azure"]),
                Series::new("".into(), &["red"]),
            ],
        );
        let spans = Series::new("".into(), &[3i64, 9]);
        let spans = Series::new("".into(), &[spans]);
        let file = parquet(
            vec![
                Series::new("input".into(), &["Which colour?", "And this?"]).into(),
                answers.into(),
                Series::new("length".into(), &[Some(4i64), None]).into(),
                Series::new("share".into(), &[0.5f64, f64::NAN]).into(),
                Series::new("checked".into(), &[true, false]).into(),
                Series::new("evidence".into(), &[spans.clone(), spans]).into(),
            ],
            2,
        );
        let rows = read_json_rows(file.path()).unwrap();
        let expected = serde_json::json!([
            {"input": "Which colour?", "answers": ["blue", "azure"], "length": 4, "share": 0.5,
             "checked": true, "evidence": [[3, 9]]},
            {"input": "And this?", "answers": ["red"], "length": null, "share": null,
             "checked": false, "evidence": [[3, 9]]},
        ]);
        assert_eq!(serde_json::to_value(rows).unwrap(), expected);
    }

    #[test]
    fn what_is_not_parquet_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"prompt\": \"no table\"}\n").unwrap();
        assert!(matches!(
            read_json_rows(file.path()),
            Err(Error::Table { .. })
        ));
    }
}
