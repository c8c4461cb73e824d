//! Plain columns in memory, Parquet at the border: the only file of the library that names polars.

use std::fs::File;
use std::path::Path;

use polars::prelude::{
    Column as PolarsColumn, DataFrame, DataType, NamedFrom, ParquetCompression, ParquetReader,
    ParquetWriter, SerReader, Series,
};

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
            return Err(Error::invalid("number of columns", other.columns.len(), format!("{} are expected", self.columns.len())));
        }
        for ((name, mine), (other_name, theirs)) in self.columns.iter_mut().zip(other.columns) {
            match (&*name == &other_name, mine, theirs) {
                (true, Column::Count(a), Column::Count(b)) => a.extend(b),
                (true, Column::Number(a), Column::Number(b)) => a.extend(b),
                (true, Column::Text(a), Column::Text(b)) => a.extend(b),
                _ => return Err(Error::invalid("column", other_name, format!("{name} of the same type is expected"))),
            }
        }
        Ok(())
    }

    /// Writes the table as Parquet (zstd), beside the target first and renamed into place.
    ///
    /// Errors: [`Error::Table`], [`Error::Io`]; the old file, if any, is then untouched.
    pub fn write(&self, path: &Path) -> Result<()> {
        let table_error = |source| Error::Table { path: path.to_owned(), source };
        let columns = self
            .columns
            .iter()
            .map(|(name, column)| -> PolarsColumn {
                match column {
                    Column::Count(v) => Series::new(name.as_str().into(), v).into(),
                    Column::Number(v) => Series::new(name.as_str().into(), v).into(),
                    Column::Text(v) => Series::new(name.as_str().into(), v).into(),
                }
            })
            .collect();
        let mut frame = DataFrame::new(self.rows(), columns).map_err(table_error)?;
        let mut result = Ok(());
        files::replace(path, |file| {
            result = ParquetWriter::new(file)
                .with_compression(ParquetCompression::Zstd(None))
                .finish(&mut frame)
                .map(|_| ());
            match &result {
                Ok(()) => Ok(()),
                Err(e) => Err(std::io::Error::other(e.to_string())),
            }
        })
        .map_err(|io| match result {
            Err(source) => Error::Table { path: path.to_owned(), source },
            Ok(()) => io,
        })
    }

    /// Reads a Parquet file of 32-bit or 64-bit integers, floats and strings.
    ///
    /// Errors: [`Error::Io`], [`Error::Table`] for what is not Parquet, [`Error::Format`] for a null.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let table_error = |source| Error::Table { path: path.to_owned(), source };
        let frame = ParquetReader::new(file).finish().map_err(table_error)?;
        let mut table = Self::default();
        for column in frame.columns() {
            let name = column.name().as_str();
            if column.null_count() > 0 {
                return Err(Error::format(path, format!("column {name} holds missing values")));
            }
            table.push(name, read_column(column).map_err(table_error)?);
        }
        Ok(table)
    }
}

fn read_column(column: &PolarsColumn) -> polars::error::PolarsResult<Column> {
    Ok(match column.dtype() {
        DataType::String => {
            let text = column.str()?;
            Column::Text(text.iter().flatten().map(str::to_owned).collect())
        }
        DataType::UInt32 => Column::Count(column.u32()?.iter().flatten().collect()),
        _ => {
            let numbers = column.cast(&DataType::Float64)?;
            Column::Number(numbers.f64()?.iter().flatten().collect())
        }
    })
}
