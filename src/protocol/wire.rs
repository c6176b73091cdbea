//! How one declaration of a message becomes its struct, its decoder and its encoder.
//!
//! [`Wire`] is a type that stands in a message; `message!` implements it for structs from a table of fields. A field
//! is written `name: Type [versions]` and then, in any order but once each:
//! `[null versions]` (null is allowed there), `[tag n]` (a tagged field, KIP-482), `[or value]` (its default when that
//! is not the type's), `[ignorable]` (left out silently in versions that lack it; else only its default may be).
//! Tagged fields stand in ascending order of their tags. Nesting is as deep as the declarations, which do not recurse.

use bytes::Bytes;

use super::api::ApiKey;
use super::error_code::ErrorCode;
use super::primitive::{At, DecodeError, EncodeError, Source, Writer};
use super::value::{Records, Text};
use crate::ids::TopicId;

/// A value that stands in a message.
pub trait Wire: Sized {
    /// The fewest bytes that a value takes there.
    fn min_bytes(at: At) -> usize;
    /// Takes a value from the source.
    fn read<S: Source>(source: &mut S, at: At) -> Result<Self, DecodeError>;
    /// Writes the value.
    fn write(&self, writer: &mut Writer, at: At) -> Result<(), EncodeError>;
    /// Whether the value is null.
    fn is_null(&self) -> bool {
        false
    }
}

/// A value whose absence has an encoding of its own, so that an `Option` of it stands in messages too.
pub trait Nullable: Sized {
    /// The fewest bytes that a value or null takes there.
    fn nullable_min_bytes(at: At) -> usize;
    /// Takes a value or null; null only where `at` allows it.
    fn read_nullable<S: Source>(source: &mut S, at: At) -> Result<Option<Self>, DecodeError>;
    /// Writes the value, or null.
    fn write_nullable(value: Option<&Self>, writer: &mut Writer, at: At) -> Result<(), EncodeError>;
}

/// What a declaration says about a field besides its type and default.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name, for errors.
    pub name: &'static str,
    /// First and last version that has the field.
    pub versions: (i16, i16),
    /// First and last version that allows null.
    pub null: Option<(i16, i16)>,
    /// The tag of a tagged field.
    pub tag: Option<u32>,
    /// Whether versions without the field drop its value silently.
    pub ignorable: bool,
}

impl Field {
    /// Whether that version has the field.
    #[must_use]
    #[inline]
    pub const fn is_in(&self, version: i16) -> bool {
        version >= self.versions.0 && version <= self.versions.1
    }

    /// Whether that version has the field, untagged.
    #[must_use]
    #[inline]
    pub const fn is_plain_in(&self, version: i16) -> bool {
        self.tag.is_none() && self.is_in(version)
    }

    /// The place of the field's value.
    #[must_use]
    #[inline]
    pub const fn at(&self, at: At) -> At {
        let nullable = match self.null {
            Some((first, last)) => at.version >= first && at.version <= last,
            None => false,
        };
        At { nullable, ..at }
    }

    /// Checks what can be said about the value in that version, then writes it if the version has it untagged.
    #[inline]
    pub fn write_plain<T: Wire>(
        &self,
        value: &T,
        is_default: impl FnOnce() -> bool,
        writer: &mut Writer,
        at: At,
    ) -> Result<(), EncodeError> {
        let at = self.at(at);
        if !self.is_in(at.version) {
            return match self.ignorable || is_default() {
                true => Ok(()),
                false => Err(EncodeError::Field { field: self.name, version: at.version }),
            };
        }
        if !at.nullable && value.is_null() {
            return Err(EncodeError::Null { field: self.name, version: at.version });
        }
        match self.tag {
            None => value.write(writer, at),
            Some(_) => Ok(()),
        }
    }
}

/// A whole message: the body of a request or a response.
pub trait Message: Wire + Default + PartialEq + std::fmt::Debug {
    /// The API it belongs to, which gives its versions.
    const API: ApiKey;
    /// Its name, for errors.
    const NAME: &'static str;
}

/// A request.
pub trait Request: Message {
    /// What answers it.
    type Response: Response;
}

/// A response.
pub trait Response: Message {}

macro_rules! integer {
    ($($type:ident)*) => {$(
        impl Wire for $type {
            #[inline]
            fn min_bytes(_: At) -> usize {
                size_of::<$type>()
            }

            #[inline]
            fn read<S: Source>(source: &mut S, _: At) -> Result<Self, DecodeError> {
                source.$type()
            }

            #[inline]
            fn write(&self, writer: &mut Writer, _: At) -> Result<(), EncodeError> {
                writer.$type(*self);
                Ok(())
            }
        }
    )*};
}

integer!(i8 i16 i32 i64);

impl Wire for u16 {
    fn min_bytes(_: At) -> usize {
        2
    }

    fn read<S: Source>(source: &mut S, _: At) -> Result<Self, DecodeError> {
        source.i16().map(i16::cast_unsigned)
    }

    fn write(&self, writer: &mut Writer, _: At) -> Result<(), EncodeError> {
        writer.i16(self.cast_signed());
        Ok(())
    }
}

/// Any byte but 0 is true, as for Kafka.
impl Wire for bool {
    fn min_bytes(_: At) -> usize {
        1
    }

    fn read<S: Source>(source: &mut S, _: At) -> Result<Self, DecodeError> {
        source.i8().map(|byte| byte != 0)
    }

    fn write(&self, writer: &mut Writer, _: At) -> Result<(), EncodeError> {
        writer.i8(i8::from(*self));
        Ok(())
    }
}

impl Wire for ErrorCode {
    fn min_bytes(_: At) -> usize {
        2
    }

    fn read<S: Source>(source: &mut S, _: At) -> Result<Self, DecodeError> {
        source.i16().map(Self)
    }

    fn write(&self, writer: &mut Writer, _: At) -> Result<(), EncodeError> {
        writer.i16(self.0);
        Ok(())
    }
}

impl Wire for [u8; 16] {
    fn min_bytes(_: At) -> usize {
        16
    }

    fn read<S: Source>(source: &mut S, _: At) -> Result<Self, DecodeError> {
        source.uuid()
    }

    fn write(&self, writer: &mut Writer, _: At) -> Result<(), EncodeError> {
        writer.raw(self);
        Ok(())
    }
}

impl Wire for TopicId {
    fn min_bytes(at: At) -> usize {
        <[u8; 16]>::min_bytes(at)
    }

    fn read<S: Source>(source: &mut S, _: At) -> Result<Self, DecodeError> {
        source.uuid().map(Self)
    }

    fn write(&self, writer: &mut Writer, at: At) -> Result<(), EncodeError> {
        self.0.write(writer, at)
    }
}

impl Nullable for Text {
    #[inline]
    fn nullable_min_bytes(at: At) -> usize {
        if at.flexible { 1 } else { 2 }
    }

    #[inline]
    fn read_nullable<S: Source>(source: &mut S, at: At) -> Result<Option<Self>, DecodeError> {
        source.text(at)
    }

    #[inline]
    fn write_nullable(value: Option<&Self>, writer: &mut Writer, at: At) -> Result<(), EncodeError> {
        writer.text(at, value.map(Self::as_str))
    }
}

impl Nullable for Records {
    fn nullable_min_bytes(at: At) -> usize {
        if at.flexible { 1 } else { 4 }
    }

    fn read_nullable<S: Source>(source: &mut S, at: At) -> Result<Option<Self>, DecodeError> {
        source.records(at)
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, at: At) -> Result<(), EncodeError> {
        writer.records(at, value)
    }
}

/// Bytes whose form is not the protocol's business.
impl Nullable for Bytes {
    fn nullable_min_bytes(at: At) -> usize {
        if at.flexible { 1 } else { 4 }
    }

    fn read_nullable<S: Source>(source: &mut S, at: At) -> Result<Option<Self>, DecodeError> {
        let slices = source.records(at)?;
        Ok(slices.map(|slices| slices.slices().next().cloned().unwrap_or_default()))
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, at: At) -> Result<(), EncodeError> {
        writer.count(at, value.map(Self::len))?;
        writer.raw(value.map_or(&[], |bytes| bytes));
        Ok(())
    }
}

impl<T: Wire> Nullable for Vec<T> {
    fn nullable_min_bytes(at: At) -> usize {
        if at.flexible { 1 } else { 4 }
    }

    fn read_nullable<S: Source>(source: &mut S, at: At) -> Result<Option<Self>, DecodeError> {
        let element = At { nullable: false, ..at };
        let Some(count) = source.count(at, T::min_bytes(element), size_of::<T>())? else { return Ok(None) };
        let mut elements = Self::with_capacity(count);
        for _ in 0..count {
            elements.push(T::read(source, element)?);
        }
        Ok(Some(elements))
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, at: At) -> Result<(), EncodeError> {
        writer.count(at, value.map(Self::len))?;
        let element = At { nullable: false, ..at };
        value.into_iter().flatten().try_for_each(|value| value.write(writer, element))
    }
}

impl<T: Nullable> Wire for Option<T> {
    #[inline]
    fn min_bytes(at: At) -> usize {
        T::nullable_min_bytes(at)
    }

    #[inline]
    fn read<S: Source>(source: &mut S, at: At) -> Result<Self, DecodeError> {
        T::read_nullable(source, at)
    }

    #[inline]
    fn write(&self, writer: &mut Writer, at: At) -> Result<(), EncodeError> {
        T::write_nullable(self.as_ref(), writer, at)
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }
}

/// `Wire` for a type that cannot be null, through its nullable form.
macro_rules! never_null {
    ([$($generic:tt)*] $type:ty) => {
        impl<$($generic)*> Wire for $type {
            #[inline]
            fn min_bytes(at: At) -> usize {
                Self::nullable_min_bytes(at)
            }

            #[inline]
            fn read<S: Source>(source: &mut S, at: At) -> Result<Self, DecodeError> {
                Self::read_nullable(source, At { nullable: false, ..at })?.ok_or(DecodeError::Null)
            }

            #[inline]
            fn write(&self, writer: &mut Writer, at: At) -> Result<(), EncodeError> {
                Self::write_nullable(Some(self), writer, at)
            }
        }
    };
}

never_null!([] Text);
never_null!([] Bytes);
never_null!([T: Wire] Vec<T>);

/// First and last version of a range written `3..` or `3..=5`.
macro_rules! versions {
    ($first:literal ..) => {
        ($first, i16::MAX)
    };
    ($first:literal ..= $last:literal) => {
        ($first, $last)
    };
}

/// Finds one attribute among the bracketed ones of a field.
macro_rules! attribute {
    (null [null $($range:tt)+] $($rest:tt)*) => { Some($crate::protocol::wire::versions!($($range)+)) };
    (tag [tag $tag:literal] $($rest:tt)*) => { Some($tag) };
    (ignorable [ignorable] $($rest:tt)*) => { true };
    (or [or $value:expr] $($rest:tt)*) => { $value };
    ($wanted:ident [$($other:tt)*] $($rest:tt)*) => { $crate::protocol::wire::attribute!($wanted $($rest)*) };
    (null) => { None };
    (tag) => { None };
    (ignorable) => { false };
    (or) => { Default::default() };
}

/// What the declaration of one field says.
macro_rules! field {
    ($name:ident [$($range:tt)+] $($attribute:tt)*) => {
        $crate::protocol::wire::Field {
            name: stringify!($name),
            versions: $crate::protocol::wire::versions!($($range)+),
            null: $crate::protocol::wire::attribute!(null $($attribute)*),
            tag: $crate::protocol::wire::attribute!(tag $($attribute)*),
            ignorable: $crate::protocol::wire::attribute!(ignorable $($attribute)*),
        }
    };
}

/// Declares requests, responses and the structs in them; see the module's header for the fields.
macro_rules! message {
    () => {};
    ($(#[$meta:meta])* request $api:ident $name:ident -> $response:ident { $($body:tt)* } $($rest:tt)*) => {
        $crate::protocol::wire::message! { $(#[$meta])* part $name { $($body)* } }
        impl $crate::protocol::wire::Message for $name {
            const API: $crate::protocol::api::ApiKey = $crate::protocol::api::ApiKey::$api;
            const NAME: &'static str = stringify!($name);
        }
        impl $crate::protocol::wire::Request for $name {
            type Response = $response;
        }
        $crate::protocol::wire::message! { $($rest)* }
    };
    ($(#[$meta:meta])* response $api:ident $name:ident { $($body:tt)* } $($rest:tt)*) => {
        $crate::protocol::wire::message! { $(#[$meta])* part $name { $($body)* } }
        impl $crate::protocol::wire::Message for $name {
            const API: $crate::protocol::api::ApiKey = $crate::protocol::api::ApiKey::$api;
            const NAME: &'static str = stringify!($name);
        }
        impl $crate::protocol::wire::Response for $name {}
        $crate::protocol::wire::message! { $($rest)* }
    };
    ($(#[$meta:meta])* part $name:ident {$(
        $(#[$field_meta:meta])*
        $field:ident : $type:ty [$($range:tt)+] $([$($attribute:tt)+])* ,
    )*} $($rest:tt)*) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::protocol::wire::attribute!(or $([$($attribute)+])*),)* }
            }
        }

        $crate::protocol::wire::structure! { $name { $($field: $type [$($range)+] $([$($attribute)+])*,)* } }
        $crate::protocol::wire::message! { $($rest)* }
    };
}

/// `Wire` and `Nullable` of a declared struct.
macro_rules! structure {
    ($name:ident {$( $field:ident : $type:ty [$($range:tt)+] $([$($attribute:tt)+])* , )*}) => {
        impl $crate::protocol::wire::Wire for $name {
            fn min_bytes(at: $crate::protocol::primitive::At) -> usize {
                use $crate::protocol::wire::{field, Field, Wire};
                let mut bytes = usize::from(at.flexible);
                $({
                    const FIELD: Field = field!($field [$($range)+] $([$($attribute)+])*);
                    if FIELD.is_plain_in(at.version) {
                        bytes += <$type as Wire>::min_bytes(at);
                    }
                })*
                bytes
            }

            fn read<S: $crate::protocol::primitive::Source>(
                source: &mut S,
                at: $crate::protocol::primitive::At,
            ) -> Result<Self, $crate::protocol::primitive::DecodeError> {
                use $crate::protocol::wire::{field, Field, Wire};
                let mut message = Self::default();
                $({
                    const FIELD: Field = field!($field [$($range)+] $([$($attribute)+])*);
                    if FIELD.is_plain_in(at.version) {
                        message.$field = Wire::read(source, FIELD.at(at))?;
                    }
                })*
                if at.flexible {
                    source.tags(|source, tag| {
                        // Not every struct has a tagged field.
                        let _ = (&source, &mut message);
                        $({
                            const FIELD: Field = field!($field [$($range)+] $([$($attribute)+])*);
                            if FIELD.tag == Some(tag) && FIELD.is_in(at.version) {
                                message.$field = Wire::read(source, FIELD.at(at))?;
                                return Ok(true);
                            }
                        })*
                        Ok(false)
                    })?;
                }
                Ok(message)
            }

            fn write(
                &self,
                writer: &mut $crate::protocol::primitive::Writer,
                at: $crate::protocol::primitive::At,
            ) -> Result<(), $crate::protocol::primitive::EncodeError> {
                use $crate::protocol::wire::{attribute, field, Field, Wire};
                let mut tagged = 0u32;
                $({
                    const FIELD: Field = field!($field [$($range)+] $([$($attribute)+])*);
                    let is_default = || -> bool {
                        let default: $type = attribute!(or $([$($attribute)+])*);
                        self.$field == default
                    };
                    FIELD.write_plain(&self.$field, is_default, writer, at)?;
                    if FIELD.tag.is_some() && FIELD.is_in(at.version) && !is_default() {
                        tagged += 1;
                    }
                })*
                if at.flexible {
                    writer.varint(tagged);
                }
                if tagged == 0 {
                    return Ok(());
                }
                $({
                    const FIELD: Field = field!($field [$($range)+] $([$($attribute)+])*);
                    if let Some(tag) = FIELD.tag && FIELD.is_in(at.version) {
                        let default: $type = attribute!(or $([$($attribute)+])*);
                        if self.$field != default {
                            writer.tagged(tag, |writer| Wire::write(&self.$field, writer, FIELD.at(at)))?;
                        }
                    }
                })*
                Ok(())
            }
        }

        /// A struct that may be null has a byte in front: 1, or -1 for null (KIP-893).
        impl $crate::protocol::wire::Nullable for $name {
            fn nullable_min_bytes(_: $crate::protocol::primitive::At) -> usize {
                1
            }

            fn read_nullable<S: $crate::protocol::primitive::Source>(
                source: &mut S,
                at: $crate::protocol::primitive::At,
            ) -> Result<Option<Self>, $crate::protocol::primitive::DecodeError> {
                source.present(at)?.then(|| $crate::protocol::wire::Wire::read(source, at)).transpose()
            }

            fn write_nullable(
                value: Option<&Self>,
                writer: &mut $crate::protocol::primitive::Writer,
                at: $crate::protocol::primitive::At,
            ) -> Result<(), $crate::protocol::primitive::EncodeError> {
                use $crate::protocol::wire::Wire;
                writer.i8(if value.is_some() { 1 } else { -1 });
                value.map_or(Ok(()), |value| value.write(writer, at))
            }
        }
    };
}

pub(crate) use {attribute, field, message, structure, versions};
