//! A table as CSV or Parquet, for other programs.
//!
//! Rows are JSON objects. A column exists if any row has it, in the order of first appearance, and
//! has one type: integers, floating-point numbers, booleans, or text. Lists and objects within a
//! cell become JSON text. A value that a row lacks is null (Parquet) or empty (CSV). This file
//! knows nothing of the meaning of columns.

use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Whole,
    Number,
    Flag,
    Text,
}

/// Rows with the same columns.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Kind)>,
    /// `[row][column]`, `Null` for a value that the row lacks.
    rows: Vec<Vec<Value>>,
}

fn kind(value: &Value) -> Kind {
    match value {
        Value::Bool(_) => Kind::Flag,
        Value::Number(number) if number.is_f64() => Kind::Number,
        Value::Number(number) if number.as_i64().is_some() => Kind::Whole,
        Value::Number(_) => Kind::Number,
        _ => Kind::Text,
    }
}

fn joined(one: Kind, other: Kind) -> Kind {
    match (one, other) {
        (one, other) if one == other => one,
        (Kind::Whole | Kind::Number, Kind::Whole | Kind::Number) => Kind::Number,
        _ => Kind::Text,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Table {
    /// `columns` selects and orders the columns. If it is empty, all are used.
    pub fn new(columns: &[String], rows: &[Map<String, Value>]) -> Self {
        let mut found: Vec<(String, Option<Kind>)> = columns.iter().map(|name| (name.clone(), None)).collect();
        for (name, value) in rows.iter().flatten() {
            let column = match found.iter_mut().find(|(known, _)| known == name) {
                Some(column) => column,
                None if columns.is_empty() => {
                    found.push((name.clone(), None));
                    found.last_mut().expect("just pushed")
                }
                None => continue,
            };
            if !value.is_null() {
                column.1 = Some(column.1.map_or(kind(value), |known| joined(known, kind(value))));
            }
        }
        let cells = |row: &Map<String, Value>| {
            found.iter().map(|(name, _)| row.get(name).cloned().unwrap_or(Value::Null)).collect()
        };
        let rows = rows.iter().map(cells).collect();
        Self { rows, columns: found.into_iter().map(|(name, kind)| (name, kind.unwrap_or(Kind::Text))).collect() }
    }

    pub fn csv(&self) -> Result<Vec<u8>> {
        let failed = |e: String| Error::corrupt(format!("writing a table as CSV: {e}"));
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(self.columns.iter().map(|(name, _)| name)).map_err(|e| failed(e.to_string()))?;
        for row in &self.rows {
            writer.write_record(row.iter().map(text)).map_err(|e| failed(e.to_string()))?;
        }
        writer.into_inner().map_err(|e| failed(e.to_string()))
    }

    /// Writes one row group with optional columns, compressed with Zstandard.
    pub fn parquet(&self) -> Result<Vec<u8>> {
        self.write_parquet().map_err(|e| Error::corrupt(format!("writing a table as Parquet: {e}")))
    }

    fn write_parquet(&self) -> std::result::Result<Vec<u8>, ParquetError> {
        let fields =
            self.columns.iter().map(|(name, kind)| field(name, *kind)).collect::<std::result::Result<_, _>>()?;
        let schema = Arc::new(Type::group_type_builder("table").with_fields(fields).build()?);
        let compression = Compression::ZSTD(Default::default());
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties)?;
        let mut group = writer.next_row_group()?;
        let mut column = 0;
        while let Some(mut out) = group.next_column()? {
            let cells: Vec<&Value> = self.rows.iter().map(|row| &row[column]).collect();
            write_column(&mut out, self.columns[column].1, &cells)?;
            out.close()?;
            column += 1;
        }
        group.close()?;
        writer.close()?;
        Ok(bytes)
    }
}

fn field(name: &str, kind: Kind) -> std::result::Result<TypePtr, ParquetError> {
    let physical = match kind {
        Kind::Whole => Physical::INT64,
        Kind::Number => Physical::DOUBLE,
        Kind::Flag => Physical::BOOLEAN,
        Kind::Text => Physical::BYTE_ARRAY,
    };
    let mut field = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
    if kind == Kind::Text {
        field = field.with_converted_type(ConvertedType::UTF8).with_logical_type(Some(LogicalType::String));
    }
    field.build().map(Arc::new)
}

fn write_column(
    out: &mut SerializedColumnWriter,
    kind: Kind,
    cells: &[&Value],
) -> std::result::Result<(), ParquetError> {
    let there: Vec<i16> = cells.iter().map(|value| i16::from(!value.is_null())).collect();
    let values = || cells.iter().filter(|value| !value.is_null());
    match kind {
        Kind::Whole => {
            let values: Vec<i64> = values().filter_map(|value| value.as_i64()).collect();
            out.typed::<Int64Type>().write_batch(&values, Some(&there), None)?
        }
        Kind::Number => {
            let values: Vec<f64> = values().filter_map(|value| value.as_f64()).collect();
            out.typed::<DoubleType>().write_batch(&values, Some(&there), None)?
        }
        Kind::Flag => {
            let values: Vec<bool> = values().filter_map(|value| value.as_bool()).collect();
            out.typed::<BoolType>().write_batch(&values, Some(&there), None)?
        }
        Kind::Text => {
            let values: Vec<ByteArray> = values().map(|value| text(value).into_bytes().into()).collect();
            out.typed::<ByteArrayType>().write_batch(&values, Some(&there), None)?
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Field, RowAccessor};
    use serde_json::json;

    use super::*;

    fn rows() -> Vec<Map<String, Value>> {
        [
            json!({ "model": "a, \"b\"", "features": 3, "share": 0.25, "held": true, "dims": [1, 2] }),
            json!({ "model": "ü", "features": null, "share": 1, "held": false, "dims": null, "late": 7.5 }),
        ]
        .iter()
        .map(|row| row.as_object().unwrap().clone())
        .collect()
    }

    #[test]
    fn csv_is_what_spreadsheets_read() {
        let table = Table::new(&[], &rows());
        let text = String::from_utf8(table.csv().unwrap()).unwrap();
        assert_eq!(
            text,
            "model,features,share,held,dims,late\n\"a, \"\"b\"\"\",3,0.25,true,\"[1,2]\",\nü,,1,false,,7.5\n"
        );
        let chosen = Table::new(&["late".into(), "model".into(), "absent".into()], &rows()).csv().unwrap();
        assert_eq!(String::from_utf8(chosen).unwrap(), "late,model,absent\n,\"a, \"\"b\"\"\",\n7.5,ü,\n");
    }

    #[test]
    fn parquet_comes_back_with_types_and_nulls() {
        let bytes = Table::new(&[], &rows()).parquet().unwrap();
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].get_string(0).unwrap().as_str(), rows[0].get_long(1).unwrap()), ("a, \"b\"", 3));
        assert_eq!((rows[1].get_double(2).unwrap(), rows[1].get_bool(3).unwrap()), (1.0, false));
        assert_eq!(rows[0].get_string(4).unwrap(), "[1,2]");
        let nulls = |row: usize| rows[row].get_column_iter().filter(|(_, field)| **field == Field::Null).count();
        assert_eq!((nulls(0), nulls(1)), (1, 2));
    }

    #[test]
    fn a_table_without_rows_still_has_its_columns() {
        let table = Table::new(&["a".into()], &[]);
        assert_eq!(table.csv().unwrap(), b"a\n");
        let reader = SerializedFileReader::new(bytes::Bytes::from(table.parquet().unwrap())).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }
}
