//! Values of any type, by chance: the type says what it wants, the dice say which.

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// How often a throw is changed before a type is given up.
const TRIES: usize = 5_000;

/// Beyond this depth nothing is nested further.
const DEEPEST: usize = 9;

const STRINGS: [&str; 13] = [
    "web",
    "0199c0de-0000-7000-8000-000000000001",
    "2026-11-22T10:00:00Z",
    "web/main/0",
    "64MiB",
    "1.5",
    "10s",
    "arch == amd64",
    "arch",
    "",
    "é\u{0}\u{1f600}",
    "a text that is rather longer than names and numbers are, with \"quotes\" and \\",
    "{\"k\":[1]}",
];

const NUMBERS: [u64; 6] = [0, 1, 7, 200, u32::MAX as u64, u64::MAX];

/// A value of a type; none if every throw that was tried is refused.
pub(crate) fn value<T: DeserializeOwned>(seed: u64) -> Option<T> {
    let mut throws: Vec<(usize, usize)> = Vec::new();
    for _ in 0..TRIES {
        let mut dice = Dice {
            throws,
            at: 0,
            random: seed,
            depth: 0,
        };
        let made = T::deserialize(&mut dice);
        throws = dice.throws;
        if let Ok(value) = made {
            return Some(value);
        }
        // The last throw is what was refused: the next side of that die, or of the one before.
        throws.truncate(dice.at);
        loop {
            let (side, sides) = throws.last_mut()?;
            *side += 1;
            if *side < *sides {
                break;
            }
            throws.pop();
        }
    }
    None
}

struct Dice {
    /// Which side of how many, counted from where the die fell first.
    throws: Vec<(usize, usize)>,
    at: usize,
    random: u64,
    depth: usize,
}

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        // Splitmix64: the same place falls the same each time.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let first = usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap();
        if self.at == self.throws.len() {
            self.throws.push((0, sides));
        }
        let (side, _) = self.throws[self.at];
        self.at += 1;
        (first + side) % sides
    }

    fn string(&mut self) -> &'static str {
        STRINGS[self.throw(STRINGS.len())]
    }

    fn number(&mut self) -> u64 {
        NUMBERS[self.throw(NUMBERS.len())]
    }

    fn count(&mut self) -> usize {
        if self.depth > DEEPEST {
            0
        } else {
            self.throw(3)
        }
    }
}

type Refused = de::value::Error;

macro_rules! number {
    ($($method:ident => $visit:ident: $type:ty),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            let number = self.number();
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
            visitor.$visit(number as $type)
        })+
    };
}

impl<'de> de::Deserializer<'de> for &mut Dice {
    type Error = Refused;

    number!(
        deserialize_i8 => visit_i8: i8,
        deserialize_i16 => visit_i16: i16,
        deserialize_i32 => visit_i32: i32,
        deserialize_i64 => visit_i64: i64,
        deserialize_u8 => visit_u8: u8,
        deserialize_u16 => visit_u16: u16,
        deserialize_u32 => visit_u32: u32,
        deserialize_u64 => visit_u64: u64,
    );

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.throw(4) {
            0 => self.deserialize_string(visitor),
            1 => self.deserialize_u64(visitor),
            2 => self.deserialize_bool(visitor),
            _ => visitor.visit_unit(),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let yes = self.throw(2) == 1;
        visitor.visit_bool(yes)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_f64([0.0, 0.5, -1.25, 1e9][self.throw(4)])
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_char('x')
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_borrowed_str(self.string())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_borrowed_str(self.string())
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let length = [16, 0, 3][self.throw(3)];
        visitor.visit_bytes(&[0xdf; 16][..length])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        if self.depth > DEEPEST || self.throw(2) == 0 {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let count = self.count();
        visitor.visit_seq(Several::of(self, count, &[]))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_seq(Several::of(self, length, &[]))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_seq(Several::of(self, length, &[]))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let count = self.count().min(1);
        visitor.visit_map(Several::of(self, count, &[]))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_map(Several::of(self, fields.len(), fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let variant = variants[self.throw(variants.len())];
        visitor.visit_enum(Variant {
            dice: self,
            variant,
        })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }
}

/// So many elements, or entries; those of a struct under the names of its fields.
struct Several<'a> {
    dice: &'a mut Dice,
    left: usize,
    fields: &'static [&'static str],
}

impl<'a> Several<'a> {
    fn of(dice: &'a mut Dice, left: usize, fields: &'static [&'static str]) -> Self {
        dice.depth += 1;
        Self { dice, left, fields }
    }
}

impl Drop for Several<'_> {
    fn drop(&mut self) {
        self.dice.depth -= 1;
    }
}

impl<'de> SeqAccess<'de> for Several<'_> {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.dice).map(Some)
    }
}

impl<'de> MapAccess<'de> for Several<'_> {
    type Error = Refused;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let key = match self.fields {
            [] => self.dice.string(),
            fields => fields[self.left],
        };
        let key: StrDeserializer<'_, Refused> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        seed.deserialize(&mut *self.dice)
    }
}

struct Variant<'a> {
    dice: &'a mut Dice,
    variant: &'static str,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Refused;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Refused> {
        let name: StrDeserializer<'_, Refused> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refused> {
        seed.deserialize(self.dice)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_seq(Several::of(self.dice, length, &[]))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_map(Several::of(self.dice, fields.len(), fields))
    }
}
