//! An interpreter for pickles. A pickle is a program for a stack machine. This machine knows the
//! instructions of protocols 2 to 5 that create values, and calls nothing: a name must be one of
//! those in `objects.rs`, or the pickle is rejected.
//!
//! Facts: CPython's `pickletools`, and `torch/serialization.py`.

use std::collections::HashMap;

use super::input::Input;
use super::objects::{Known, Objects, Value};
use super::problem::{Outcome, damaged, foreign, unsupported};
use crate::outside::shown;

/// The largest pickle in bytes. 80,000 tensors need half of it.
pub(super) const MAX_PICKLE: u64 = 32 << 20;
/// The largest number of values and marks that are pushed; a tensor needs about 25. They take less
/// than a quarter of a GB of memory.
const MAX_VALUES: usize = 2_000_000;
/// The largest index of a memorised value.
const MAX_MEMO: usize = 1_000_000;
const NEWEST: u8 = 5;

struct Machine<'a> {
    input: Input<'a>,
    objects: Objects<'a>,
    stack: Vec<Value>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    /// Number of values and marks so far.
    made: usize,
}

/// Interprets a pickle and returns its objects and its result.
///
/// # Errors
/// An error if it needs something other than tensors, is truncated, or creates too many values.
pub(super) fn run(pickle: &[u8]) -> Outcome<(Objects<'_>, Value)> {
    let objects = Objects { pickle, ..Objects::default() };
    let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
    let input = Input { pickle, at: 0 };
    let mut machine = Machine { input, objects, stack, marks, memo, made: 0 };
    loop {
        let instruction = machine.input.byte()?;
        if instruction == b'.' {
            let made = machine.pop()?;
            return Ok((machine.objects, made));
        }
        machine.step(instruction)?;
    }
}

impl<'a> Machine<'a> {
    fn step(&mut self, instruction: u8) -> Outcome<()> {
        match instruction {
            // PROTO, FRAME
            0x80 => match self.input.byte()? {
                version if version <= NEWEST => Ok(()),
                version => unsupported(format!("a pickle of protocol {version}")),
            },
            0x95 => {
                let bytes = self.input.length(8)?;
                self.input.fits(bytes)
            }
            // MARK, POP, POP_MARK, DUP
            b'(' => {
                self.count()?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' if self.marks.last() == Some(&self.stack.len()) => self.marked().map(drop),
            b'0' => self.pop().map(drop),
            b'1' => self.marked().map(drop),
            b'2' => self.top().and_then(|top| self.push(top)),
            // NONE, NEWTRUE, NEWFALSE, BINFLOAT
            b'N' | 0x88 | 0x89 => self.push(Value::Plain),
            b'G' => self.input.take(8).and_then(|_| self.push(Value::Plain)),
            b'J' | b'K' | b'M' | 0x8a | 0x8b => self.integer(instruction),
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, BINSTRING, SHORT_BINSTRING
            b'X' => self.text(4),
            0x8c => self.text(1),
            0x8d => self.text(8),
            b'T' => self.text(4),
            b'U' => self.text(1),
            // BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
            b'B' => self.bytes(4),
            b'C' => self.bytes(1),
            0x8e | 0x96 => self.bytes(8),
            b'}' | b']' | b')' | b't' | 0x85..=0x87 | b'l' | b'd' | b'a' | b'e' | b's' | b'u' | 0x8f..=0x91 => {
                self.collection(instruction)
            }
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memory(instruction),
            _ => self.object(instruction),
        }
    }

    /// BININT, BININT1, BININT2, LONG1, LONG4
    fn integer(&mut self, instruction: u8) -> Outcome<()> {
        let number = match instruction {
            b'J' => i32::from_le_bytes(self.input.take(4)?.try_into().expect("four bytes")).into(),
            b'K' => self.input.byte()?.into(),
            b'M' => self.input.length(2)? as i64,
            _ => {
                let digits = self.input.following(if instruction == 0x8a { 1 } else { 4 })?;
                if digits.len() > 8 {
                    // Large integers, such as random seeds, are not sizes of tensors.
                    return self.push(Value::Plain);
                }
                let negative = digits.last().is_some_and(|last| last & 0x80 != 0);
                let mut all = [if negative { 0xff } else { 0 }; 8];
                all[..digits.len()].copy_from_slice(digits);
                i64::from_le_bytes(all)
            }
        };
        self.push(Value::Int(number))
    }

    fn collection(&mut self, instruction: u8) -> Outcome<()> {
        let value = match instruction {
            // EMPTY_DICT, EMPTY_LIST and EMPTY_SET, EMPTY_TUPLE
            b'}' => self.objects.map(Vec::new()),
            b']' | 0x8f => self.objects.list(Vec::new()),
            b')' => self.objects.tuple(Vec::new()),
            // TUPLE1 to TUPLE3
            0x85..=0x87 => {
                let mut values = Vec::with_capacity(3);
                for _ in 0x85..=instruction {
                    values.push(self.pop()?);
                }
                values.reverse();
                self.objects.tuple(values)
            }
            // TUPLE and FROZENSET, LIST, DICT
            b't' | 0x91 => {
                let values = self.marked()?;
                self.objects.tuple(values)
            }
            b'l' => {
                let values = self.marked()?;
                self.objects.list(values)
            }
            b'd' => {
                let values = self.marked()?;
                let pairs = pairs(&values)?;
                self.objects.map(pairs)
            }
            // APPEND, APPENDS and ADDITEMS, SETITEM, SETITEMS
            b'a' => {
                let value = self.pop()?;
                return self.append(&[value]);
            }
            b'e' | 0x90 => {
                let values = self.marked()?;
                return self.append(&values);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                return self.set(&[key, value]);
            }
            _ => {
                let values = self.marked()?;
                return self.set(&values);
            }
        };
        self.push(value)
    }

    fn append(&mut self, values: &[Value]) -> Outcome<()> {
        match self.top()? {
            Value::List(list) => self.objects.lists[list as usize].extend(values),
            _ => return foreign("something to be appended to what is no list"),
        }
        Ok(())
    }

    fn set(&mut self, values: &[Value]) -> Outcome<()> {
        match self.top()? {
            Value::Map(map) => self.objects.maps[map as usize].extend(pairs(values)?),
            _ => return foreign("something to be put into what is no dictionary"),
        }
        Ok(())
    }

    /// BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
    fn memory(&mut self, instruction: u8) -> Outcome<()> {
        let place = match instruction {
            b'q' | b'h' => self.input.byte()?.into(),
            b'r' | b'j' => self.input.length(4)? as u32,
            _ => self.memo.len() as u32,
        };
        if matches!(instruction, b'h' | b'j') {
            let value = self.memo.get(&place).copied();
            return value.map_or_else(|| damaged("its pickle takes up what it never made"), |value| self.push(value));
        }
        let top = self.top()?;
        self.memo.insert(place, top);
        if self.memo.len() > MAX_MEMO { damaged(too_much()) } else { Ok(()) }
    }

    /// Instructions that import a name or call it.
    fn object(&mut self, instruction: u8) -> Outcome<()> {
        match instruction {
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let known = Known::named(self.input.line()?, self.input.line()?)?;
                self.push(Value::Known(known))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(n, m), Value::Text(o, p)) = (name, module) else {
                    return foreign("something by a name that is no text");
                };
                let known = Known::named(self.objects.text((o, p)), self.objects.text((n, m)))?;
                self.push(Value::Known(known))
            }
            // BINPERSID, REDUCE
            b'Q' => {
                let id = self.pop()?;
                let storage = self.objects.storage(id)?;
                self.push(storage)
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let made = self.objects.call(function, arguments)?;
                self.push(made)
            }
            // BUILD: attributes of a dictionary, such as the versions of a model's parts.
            b'b' => match (self.pop()?, self.top()?) {
                (Value::Map(_), Value::Map(_)) => Ok(()),
                _ => foreign("the state of an object to be set"),
            },
            // INST
            b'i' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                foreign(format!("an object of `{}`", shown(&format!("{module}.{name}"))))
            }
            // OBJ, NEWOBJ, NEWOBJ_EX
            b'o' | 0x81 | 0x92 => foreign("an object to be made of a class"),
            // EXT1, EXT2, EXT4
            0x82..=0x84 => {
                let number = self.input.length([1, 2, 4][usize::from(instruction - 0x82)])?;
                foreign(format!("number {number} of Python's registry of extensions"))
            }
            // PERSID
            b'P' => foreign(format!("a persistent object `{}`", shown(self.input.line()?))),
            // NEXT_BUFFER, READONLY_BUFFER
            0x97 | 0x98 => foreign("bytes that are not in it"),
            // GET, PUT, INT, LONG, FLOAT, STRING, UNICODE
            b'g' | b'p' | b'I' | b'L' | b'F' | b'S' | b'V' => {
                unsupported("a pickle of protocol 0, which torch.save does not write")
            }
            _ => damaged(format!("its pickle has no instruction at byte {}", self.input.at - 1)),
        }
    }

    fn text(&mut self, bytes: usize) -> Outcome<()> {
        let text = self.input.following(bytes)?;
        let end = self.input.at as u32;
        if std::str::from_utf8(text).is_err() {
            return damaged("a text in its pickle is not UTF-8");
        }
        self.push(Value::Text(end - text.len() as u32, end))
    }

    fn bytes(&mut self, bytes: usize) -> Outcome<()> {
        self.input.following(bytes)?;
        self.push(Value::Plain)
    }

    fn count(&mut self) -> Outcome<()> {
        self.made += 1;
        if self.made > MAX_VALUES { damaged(too_much()) } else { Ok(()) }
    }

    fn push(&mut self, value: Value) -> Outcome<()> {
        self.count()?;
        self.stack.push(value);
        Ok(())
    }

    fn top(&self) -> Outcome<Value> {
        let above = self.stack.len() > self.marks.last().copied().unwrap_or(0);
        let top = self.stack.last().copied().filter(|_| above);
        top.map_or_else(|| damaged("its pickle takes more than it has made"), Ok)
    }

    fn pop(&mut self) -> Outcome<Value> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Pops the values above the last mark, and the mark.
    fn marked(&mut self) -> Outcome<Vec<Value>> {
        match self.marks.pop() {
            Some(height) => {
                // A new vector, because the stack may have a large capacity.
                let values = self.stack[height..].to_vec();
                self.stack.truncate(height);
                Ok(values)
            }
            None => damaged("its pickle ends what it has not begun"),
        }
    }
}

fn too_much() -> String {
    "its pickle makes more values than the tensors of any model need".to_string()
}

fn pairs(values: &[Value]) -> Outcome<Vec<(Value, Value)>> {
    match values.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
        _ => damaged("a dictionary in its pickle has a key without a value"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::Problem;
    use super::*;

    fn problem(pickle: &[u8]) -> Problem {
        run(pickle).map(drop).expect_err("it is refused")
    }

    #[track_caller]
    fn asks(pickle: &[u8], what: &str) {
        assert_eq!(problem(pickle), Problem::Foreign(what.to_string()));
    }

    #[test]
    fn nothing_that_runs_is_taken() {
        asks(b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.", "`os.system`");
        asks(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.", "`posix.system`");
        asks(b"\x80\x02(X\x02\0\0\0idios\nsystem\n.", "an object of `os.system`");
        asks(b"\x80\x02(ctorch\nFloatStorage\nX\x02\0\0\0ido.", "an object to be made of a class");
        asks(b"\x80\x02ctorch\nFloatStorage\n)\x81.", "an object to be made of a class");
        asks(b"\x80\x02\x82\x07.", "number 7 of Python's registry of extensions");
        asks(b"\x80\x02\x84\x01\0\x01\0.", "number 65537 of Python's registry of extensions");
        asks(b"\x80\x02ccollections\nOrderedDict\n}b.", "the state of an object to be set");
        asks(b"\x80\x02X\x02\0\0\0id)R.", "a call of what is no function");
        asks(b"\x80\x02ctorch\nFloatStorage\n)R.", "a storage by a call");
        asks(b"\x80\x02X\x02\0\0\0idQ.", "a persistent object that is no storage");
        asks(b"\x80\x02Pid\n.", "a persistent object `id`");
        asks(b"\x80\x02cbuiltins\n__import__\n.", "`builtins.__import__`");
        asks(b"\x80\x02ctorch.storage\n_load_from_bytes\n.", "`torch.storage._load_from_bytes`");
    }

    #[test]
    fn lengths_that_are_not_there_are_not_believed() {
        for pickle in [
            &b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffab."[..],
            b"\x80\x04\x8d\x03\0\0\0\0\0\0\0ab",
            b"\x80\x02X\xff\xff\xff\xffab.",
            b"\x80\x02\x8b\xff\xff\xff\xff\x01.",
            b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
            b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
            b"\x80\x02cos",
            b"\x80",
            b"",
        ] {
            let Problem::Damaged(said) = problem(pickle) else { panic!("{pickle:?}") };
            assert!(said.contains("cut off"), "{said}");
        }
    }

    #[test]
    fn a_stack_is_not_left() {
        for pickle in [&b"."[..], b"0.", b"R.", b"N(a.", b"t.", b"}(Nu.", b"h\x07.", b"q\x01.", b"]("] {
            assert!(matches!(problem(pickle), Problem::Damaged(_)), "{pickle:?}");
        }
    }

    #[test]
    fn what_is_made_has_a_bound() {
        for unit in [&b"("[..], b"]", b"N2", b")\x85"] {
            let Problem::Damaged(said) = problem(&unit.repeat(MAX_VALUES + 1)) else { panic!("{unit:?}") };
            assert_eq!(said, too_much());
        }
        let memo = [&b"N"[..], &[0x94].repeat(MAX_MEMO + 1)].concat();
        assert_eq!(problem(&memo), Problem::Damaged(too_much()));
    }

    /// Neither depth nor cycles of values use the program's stack.
    #[test]
    fn depth_and_circles_cost_nothing() {
        for (begin, end) in [(&b"]"[..], &b"a"[..]), (b"", b"\x85")] {
            let deep = [&begin.repeat(200_000), &b"N"[..], &end.repeat(200_000), b"."].concat();
            assert!(run(&deep).is_ok());
        }
        assert!(run(b"\x80\x02]q\0h\0a}q\x01h\x01h\0s.").is_ok());
    }

    #[test]
    fn numbers_have_their_signs() {
        for (pickle, number) in [
            (&b"J\xff\xff\xff\xff."[..], -1),
            (b"K\xff.", 255),
            (b"M\xff\xff.", 65535),
            (b"\x8a\x00.", 0),
            (b"\x8a\x01\xff.", -1),
            (b"\x8a\x02\xff\x00.", 255),
            (b"\x8a\x08\0\0\0\0\0\0\0\x80.", i64::MIN),
            (b"\x8b\x05\0\0\0\0\0\0\0\x01.", 1 << 32),
        ] {
            assert_eq!(run(pickle).unwrap().1, Value::Int(number));
        }
        assert_eq!(run(b"\x8a\x09\0\0\0\0\0\0\0\0\x01.").unwrap().1, Value::Plain);
    }
}
