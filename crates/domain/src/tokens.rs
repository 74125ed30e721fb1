//! Token counts of one model call, in disjoint classes.
//!
//! The table has a line for each class, and prices, rows and answers go by it. Besides its line a
//! class needs a rule in the usage formats that know it, and a column in the warehouse.

use std::ops::{Index, IndexMut};

macro_rules! token_classes {
    (input { $($input:ident $input_field:ident,)* } output { $($output:ident $output_field:ident,)* }) => {
        token_classes!(@all $($input $input_field,)* $($output $output_field,)*);

        impl TokenClass {
            /// Those that the model read; the others it wrote.
            const INPUTS: usize = [$(Self::$input,)*].len();
        }
    };
    (@all $($class:ident $field:ident,)*) => {
        /// A billing class of tokens.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs)]
        pub enum TokenClass {
            $($class,)*
        }

        impl TokenClass {
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
            /// All, those of the input first.
            pub const ALL: [Self; [$(stringify!($field),)*].len()] = [$(Self::$class,)*];

            /// The name in price books and tables.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$class => stringify!($field),)*
                }
            }

            /// The column in the warehouse's rows, and the member of `usage` that is nearest to it.
            pub fn column(self) -> &'static str {
                match self {
                    $(Self::$class => concat!(stringify!($field), "_tokens"),)*
                }
            }
        }

        /// Tokens of one call, by billing class. The classes are disjoint: a cached token is in
        /// [`cache_read`](Self::cache_read) and not in [`input`](Self::input), whatever the
        /// provider's format says. Each count is at most 10⁹.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub struct TokenClasses {
            $(pub $field: u64,)*
        }

        impl TokenClasses {
            /// The counts of all classes, in their order.
            #[inline]
            pub fn each(&self) -> [u64; TokenClass::COUNT] {
                [$(self.$field,)*]
            }
        }

        impl Index<TokenClass> for TokenClasses {
            type Output = u64;

            #[inline]
            fn index(&self, class: TokenClass) -> &u64 {
                match class {
                    $(TokenClass::$class => &self.$field,)*
                }
            }
        }

        impl IndexMut<TokenClass> for TokenClasses {
            fn index_mut(&mut self, class: TokenClass) -> &mut u64 {
                match class {
                    $(TokenClass::$class => &mut self.$field,)*
                }
            }
        }
    };
}

token_classes! {
    input {
        Input input,
        CacheRead cache_read,
        CacheWrite5m cache_write_5m,
        CacheWrite1h cache_write_1h,
        AudioInput audio_input,
        ImageInput image_input,
        VideoInput video_input,
    }
    output {
        Output output,
        Reasoning reasoning,
        AudioOutput audio_output,
        ImageOutput image_output,
    }
}

impl TokenClass {
    /// Whether the model read these tokens (and did not write them).
    #[inline]
    pub fn is_input(self) -> bool {
        (self as usize) < Self::INPUTS
    }

    /// The class with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

impl TokenClasses {
    /// All input tokens of the step, cached and written ones included: the context that the model read.
    pub fn context(&self) -> u64 {
        self.each()[..TokenClass::INPUTS].iter().sum()
    }

    /// All output tokens, reasoning included.
    pub fn generated(&self) -> u64 {
        self.each()[TokenClass::INPUTS..].iter().sum()
    }

    /// Context and output together.
    pub fn total(&self) -> u64 {
        self.each().iter().sum()
    }
}
