//! Fields of records by name. Reading one field converts that field only, however large the record
//! is.

use rhai::Dynamic;
use serde::de::{DeserializeOwned, Deserializer, Visitor, value::Error as Stopped};
use serde::forward_to_deserialize_any;
use serde::ser::{Impossible, Serialize, SerializeStruct, Serializer};
use serde_json::{Error, Value};

use crate::host::language::json::to_dynamic;
use crate::record::plain;

/// The value of a field of `record`: `()` if the record has such a field without a value, and None
/// if it has no field of this name.
pub(super) fn field<T: Serialize + DeserializeOwned>(record: &T, name: &str) -> Option<Dynamic> {
    let known = names::<T>().contains(&name);
    known.then(|| match record.serialize(OneField { name }) {
        Ok(Some(value)) => to_dynamic(&value),
        Ok(None) | Err(_) => Dynamic::UNIT,
    })
}

/// The names of the fields of a record, in the order of their declaration. They are those that its
/// reader asks for.
pub(super) fn names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    let _ = T::deserialize(Names(&mut names));
    names
}

/// A source of data that has none, and remembers what it was asked for.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Stopped;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stopped> {
        Err(no_data())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Stopped> {
        *self.0 = fields;
        Err(no_data())
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn no_data() -> Stopped {
    serde::de::Error::custom("there is no data")
}

fn no_record() -> Error {
    serde::ser::Error::custom("this is no record")
}

/// A form of a record that has one of its fields only.
struct OneField<'a> {
    name: &'a str,
}

/// The field, once it has been reached.
struct Reached<'a> {
    name: &'a str,
    value: Option<Value>,
}

impl SerializeStruct for Reached<'_> {
    type Ok = Option<Value>;
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
        if key == self.name {
            self.value = Some(plain(&value));
        }
        Ok(())
    }

    fn end(self) -> Result<Option<Value>, Error> {
        Ok(self.value)
    }
}

/// Refuses every value that is not a record.
macro_rules! refuses {
    ($($method:ident($($kind:ty),*);)*) => {
        $(fn $method(self, $(_: $kind),*) -> Result<Option<Value>, Error> {
            Err(no_record())
        })*
    };
    ($($method:ident($($kind:ty),*) -> $part:ident;)*) => {
        $(fn $method(self, $(_: $kind),*) -> Result<Self::$part, Error> {
            Err(no_record())
        })*
    };
}

impl<'a> Serializer for OneField<'a> {
    type Ok = Option<Value>;
    type Error = Error;
    type SerializeStruct = Reached<'a>;
    type SerializeSeq = Impossible<Option<Value>, Error>;
    type SerializeTuple = Impossible<Option<Value>, Error>;
    type SerializeTupleStruct = Impossible<Option<Value>, Error>;
    type SerializeTupleVariant = Impossible<Option<Value>, Error>;
    type SerializeMap = Impossible<Option<Value>, Error>;
    type SerializeStructVariant = Impossible<Option<Value>, Error>;

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Reached<'a>, Error> {
        Ok(Reached { name: self.name, value: None })
    }

    refuses! {
        serialize_bool(bool); serialize_i8(i8); serialize_i16(i16); serialize_i32(i32); serialize_i64(i64);
        serialize_u8(u8); serialize_u16(u16); serialize_u32(u32); serialize_u64(u64); serialize_f32(f32);
        serialize_f64(f64); serialize_char(char); serialize_str(&str); serialize_bytes(&[u8]); serialize_none();
        serialize_unit(); serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
    }

    refuses! {
        serialize_seq(Option<usize>) -> SerializeSeq;
        serialize_tuple(usize) -> SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> SerializeTupleVariant;
        serialize_map(Option<usize>) -> SerializeMap;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Option<Value>, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Option<Value>, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Option<Value>, Error> {
        value.serialize(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Bootstrap, Criterion, Detection, Feature, ModelInfo, TokensInfo};

    #[test]
    fn every_field_reads_as_it_stands_in_the_whole_record() {
        let criterion = Criterion::default();
        let whole = plain(&criterion);
        assert_eq!(names::<Criterion>().len(), whole.as_object().map_or(0, serde_json::Map::len));
        for name in names::<Criterion>() {
            let field = field(&criterion, name).expect("it has this field");
            assert_eq!(crate::host::language::json::to_json(&field).unwrap(), whole[*name], "{name}");
        }
        assert!(field(&criterion, "magnitude").is_none());
    }

    #[test]
    fn records_of_scripts_tell_their_fields() {
        assert!(names::<Detection>().contains(&"bracket") && names::<Feature>().contains(&"sequence"));
        assert!(names::<Bootstrap>().contains(&"num_features"));
        assert!(names::<ModelInfo>().contains(&"hidden_size") && names::<TokensInfo>().contains(&"sha256"));
    }
}
