//! One field of a record as JSON, without the work of the other fields.

use serde::ser::{Error as _, Impossible, Serialize, SerializeStruct, Serializer};
use serde_json::{Error, Value};

use super::plain;

/// The field `name` of a record, as `plain` gives it. Other fields are not converted.
///
/// Nothing if the record has no such field, or is not a struct.
pub fn field(record: &impl Serialize, name: &str) -> Option<Value> {
    record.serialize(Picked { name, found: None }).ok().flatten()
}

/// A serialiser that keeps one field of a struct.
struct Picked<'a> {
    name: &'a str,
    found: Option<Value>,
}

impl SerializeStruct for Picked<'_> {
    type Ok = Option<Value>;
    type Error = Error;

    fn serialize_field<T: ?Sized + Serialize>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
        if key == self.name {
            self.found = Some(plain(value));
        }
        Ok(())
    }

    fn end(self) -> Result<Option<Value>, Error> {
        Ok(self.found)
    }
}

/// Values that are no struct have no fields.
macro_rules! without_fields {
    ($($method:ident($($argument:ty),*) -> $ok:ty;)*) => {
        $(fn $method(self, $(_: $argument),*) -> Result<$ok, Error> {
            Err(Error::custom("a record is a struct"))
        })*
    };
}

type Never = Impossible<Option<Value>, Error>;

impl Serializer for Picked<'_> {
    type Ok = Option<Value>;
    type Error = Error;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Self;
    type SerializeStructVariant = Never;

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<Self::Ok, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, _: &'static str, value: &T) -> Result<Self::Ok, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Self::Ok, Error> {
        Err(Error::custom("a record is a struct"))
    }

    without_fields! {
        serialize_bool(bool) -> Self::Ok;
        serialize_i8(i8) -> Self::Ok;
        serialize_i16(i16) -> Self::Ok;
        serialize_i32(i32) -> Self::Ok;
        serialize_i64(i64) -> Self::Ok;
        serialize_u8(u8) -> Self::Ok;
        serialize_u16(u16) -> Self::Ok;
        serialize_u32(u32) -> Self::Ok;
        serialize_u64(u64) -> Self::Ok;
        serialize_f32(f32) -> Self::Ok;
        serialize_f64(f64) -> Self::Ok;
        serialize_char(char) -> Self::Ok;
        serialize_str(&str) -> Self::Ok;
        serialize_bytes(&[u8]) -> Self::Ok;
        serialize_none() -> Self::Ok;
        serialize_unit() -> Self::Ok;
        serialize_unit_struct(&'static str) -> Self::Ok;
        serialize_unit_variant(&'static str, u32, &'static str) -> Self::Ok;
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple(usize) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BootstrapArgs, Criterion, Interval, Method};

    /// A value that cannot be converted.
    struct Untouched;

    impl Serialize for Untouched {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("this field was not asked for")
        }
    }

    #[derive(serde::Serialize)]
    struct Record {
        small: u32,
        large: Untouched,
        last: Option<&'static str>,
    }

    #[test]
    fn a_field_is_converted_without_the_others() {
        let record = Record { small: 3, large: Untouched, last: None };
        assert_eq!(field(&record, "small"), Some(3.into()));
        assert_eq!(field(&record, "last"), Some(Value::Null));
        assert_eq!(field(&record, "largest"), None);
        assert_eq!(field(&5, "small"), None);
        let _ = &record.large;
    }

    #[test]
    fn fields_are_those_of_the_whole_record() {
        fn same(record: &impl Serialize) {
            for (key, value) in plain(record).as_object().unwrap() {
                assert_eq!(field(record, key).as_ref(), Some(value), "{key}");
            }
        }
        same(&Criterion { magnitude_threshold: 5.8, ..Criterion::default() });
        same(&BootstrapArgs::default());
        same(&Interval { value: f64::INFINITY, low: 0.1, high: f64::NAN, method: Method::Bca });
    }
}
