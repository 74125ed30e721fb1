//! The table of dimensions: what spend can be added up by, and against whom a call counts.
//!
//! A line of the table is a dimension everywhere: a field of events, read, kept and written; a name
//! in scopes, budgets, questions and on the command line; a part of an event's content. Besides the
//! line it needs its place in `schemas/` and `docs/`, and a migration where rows are to have it.

use std::borrow::Cow;

macro_rules! dimensions {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $field:ident, $column:expr;)*) => {
        /// A property of a call that spend can be added up by. The order is the order of the text
        /// form.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Dimension {
            $($(#[$doc])* $variant,)*
            /// A tag by its name, written `tags.NAME`.
            Tag(String),
        }

        /// A dimension that is no tag; its number is its place in arrays over all of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum FixedDimension {
            $($(#[$doc])* $variant = $number,)*
        }

        impl FixedDimension {
            /// All, in the order of the text form.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = [$(stringify!($field),)*].len();
            /// The names, in the order of the text form.
            pub const NAMES: [&'static str; Self::COUNT] = [$(stringify!($field),)*];

            /// The name in events, budgets and scope texts.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($field),)*
                }
            }

            /// The dimension with this name.
            // Always: decoding matches the name and then what it gives, and both become one.
            #[inline(always)]
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($field) => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The word for it in texts whose hashes are stored.
            pub fn stored_word(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)*
                }
            }

            /// Its column in the warehouse's rows.
            pub fn column(self) -> &'static str {
                match self {
                    $(Self::$variant => $column,)*
                }
            }
        }

        impl From<FixedDimension> for Dimension {
            fn from(fixed: FixedDimension) -> Self {
                match fixed {
                    $(FixedDimension::$variant => Self::$variant,)*
                }
            }
        }

        impl Dimension {
            /// Every dimension but the tags.
            pub const FIXED: [Self; FixedDimension::COUNT] = [$(Self::$variant,)*];

            /// The name in events, budgets and scope texts (`tags.team` for a tag).
            pub fn name(&self) -> Cow<'_, str> {
                match self {
                    $(Self::$variant => Cow::Borrowed(stringify!($field)),)*
                    Self::Tag(name) => Cow::Owned(format!("tags.{name}")),
                }
            }

            /// The dimension where it is no tag, the tag's name where it is one.
            pub fn fixed(&self) -> Result<FixedDimension, &str> {
                match self {
                    $(Self::$variant => Ok(FixedDimension::$variant),)*
                    Self::Tag(name) => Err(name),
                }
            }
        }

        /// Who spent. Empty = absent; only `workspace` is always there.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Attribution<'a> {
            $($(#[$doc])* pub $field: Cow<'a, str>,)*
            /// Sorted by name, at most 16.
            pub tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
        }

        impl<'a> Attribution<'a> {
            /// With these tags; `text` tells the other dimensions' values.
            // Everything at once: then an event's is written where it stays.
            #[inline]
            pub fn of(
                tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
                mut text: impl FnMut(FixedDimension) -> Cow<'a, str>,
            ) -> Self {
                Self {
                    $($field: text(FixedDimension::$variant),)*
                    tags,
                }
            }

            /// The value of each dimension that is no tag, by its number.
            #[inline]
            pub fn texts(&self) -> [&Cow<'a, str>; FixedDimension::COUNT] {
                let mut texts = [&self.workspace; FixedDimension::COUNT];
                $(texts[FixedDimension::$variant as usize] = &self.$field;)*
                texts
            }

            /// The value of one, to be changed.
            pub fn text_mut(&mut self, dimension: FixedDimension) -> &mut Cow<'a, str> {
                match dimension {
                    $(FixedDimension::$variant => &mut self.$field,)*
                }
            }

            /// The values to be changed, in the order of the text form.
            pub fn texts_mut(&mut self) -> [&mut Cow<'a, str>; FixedDimension::COUNT] {
                [$(&mut self.$field,)*]
            }
        }

        impl Dimensions for Attribution<'_> {
            fn value(&self, dimension: &Dimension) -> &str {
                match dimension {
                    $(Dimension::$variant => &self.$field,)*
                    Dimension::Tag(name) => {
                        let tag = self.tags.iter().find(|(tag, _)| tag == name);
                        tag.map_or("", |(_, value)| value)
                    }
                }
            }
        }
    };
}

// The dimension and its number, its field and name, its column in rows. The order is that of scope
// texts. Numbers go on without a gap and stay: content hashes and counts are stored, and depend on
// numbers and dimensions' words.
dimensions! {
    /// The tenant.
    Workspace = 0, workspace, "workspace";
    /// The customer of the tenant for whom the call was made.
    Customer = 1, customer, "customer";
    /// The part of the product that made it.
    Feature = 2, feature, "feature";
    /// The cost centre that it is charged to.
    Project = 12, project, "project";
    /// The person who caused it.
    User = 3, user, "user_id";
    /// The agent, of several in a run.
    Agent = 4, agent, "agent";
    /// The model as budgets and prices see it.
    Model = 10, model, "model";
    /// Who answered.
    Provider = 11, provider, "provider";
    /// Production, staging and the like.
    Environment = 8, environment, "environment";
    /// The provider account that pays.
    Account = 9, account, "account";
    /// The plan that the customer is on.
    Plan = 5, plan, "plan";
    /// The run that started the session's run.
    RootSession = 7, root_session, "root_session";
    /// The run.
    Session = 6, session, "session";
}

impl FixedDimension {
    /// All, by their numbers.
    pub const BY_NUMBER: [Self; Self::COUNT] = {
        let mut sorted = Self::ALL;
        let mut place = 0;
        while place < Self::COUNT {
            sorted[Self::ALL[place] as usize] = Self::ALL[place];
            place += 1;
        }
        sorted
    };
}

impl Dimension {
    /// The dimension with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.strip_prefix("tags.") {
            Some(tag) => (!tag.is_empty()).then(|| Self::Tag(tag.to_owned())),
            None => FixedDimension::named(name).map(Self::from),
        }
    }
}

/// Anything that has values for dimensions: an event, a check request.
pub trait Dimensions {
    /// The value of `dimension`; empty where it is absent.
    fn value(&self, dimension: &Dimension) -> &str;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_round_trip() {
        for (fixed, dimension) in FixedDimension::ALL.into_iter().zip(Dimension::FIXED) {
            assert_eq!(Dimension::from(fixed), dimension);
            assert_eq!(FixedDimension::BY_NUMBER[fixed as usize], fixed);
            assert_eq!(Dimension::from_name(&dimension.name()), Some(dimension));
        }
        assert_eq!(Dimension::from_name("tags."), None);
        assert_eq!(Dimension::from_name("colour"), None);
    }

    #[test]
    fn every_value_is_found_by_its_dimension_and_by_its_number() {
        let who = Attribution::of(Vec::new(), |fixed| fixed.name().into());
        for fixed in FixedDimension::ALL {
            assert_eq!(who.value(&fixed.into()), fixed.name());
            assert_eq!(who.texts()[fixed as usize], fixed.name());
        }
    }
}
