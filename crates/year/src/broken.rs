//! Guarantees of what people and commands do, which the year does in their place: broken on purpose as
//! those of `crates/broken` are in the parts themselves.

/// The variable that names the one to break.
pub const VARIABLE: &str = "SPENDFUSE_YEAR_BREAK";

/// A guarantee that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// A correction that is sent again claims to know everything up to then, though nobody looked.
    CorrectionJudgedUnseen,
    /// A correction that is sent again has a number and an id of its own.
    CorrectionNumberedAnew,
    /// A void takes back what stood before the last correction.
    VoidPassesByACorrection,
    /// A changed limit drops the opening from the budget's record.
    OpeningDropped,
    /// What was spent before a count is asked for before the warehouse has all of it.
    OpeningToldTooEarly,
    /// The same, of the running set of topics alone.
    OpeningOfThisEpochAlone,
    /// The meters of new topics do not learn which events were counted before.
    IdentitiesNotRecovered,
}

impl Habit {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::CorrectionJudgedUnseen,
        Self::CorrectionNumberedAnew,
        Self::VoidPassesByACorrection,
        Self::OpeningDropped,
        Self::OpeningToldTooEarly,
        Self::OpeningOfThisEpochAlone,
        Self::IdentitiesNotRecovered,
    ];

    /// Its name in [`VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            Self::CorrectionJudgedUnseen => "correction-judged-unseen",
            Self::CorrectionNumberedAnew => "correction-numbered-anew",
            Self::VoidPassesByACorrection => "void-passes-by-a-correction",
            Self::OpeningDropped => "opening-dropped",
            Self::OpeningToldTooEarly => "opening-told-too-early",
            Self::OpeningOfThisEpochAlone => "opening-of-this-epoch-alone",
            Self::IdentitiesNotRecovered => "identities-not-recovered",
        }
    }

    /// Whether this process breaks it.
    pub(crate) fn is_broken(self) -> bool {
        cfg!(feature = "broken") && std::env::var(VARIABLE).is_ok_and(|name| name == self.name())
    }
}
