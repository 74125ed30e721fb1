//! Tables of metrics: the one place in each crate where a metric is named, explained, and given its
//! kind and buckets. Names are constants, the doc comment is what Prometheus shows as `HELP`.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size: upper bounds of the buckets, in the unit that the name ends with.
    Histogram(&'static [f64]),
}

/// A metric as its table describes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// As it is exported: prefix, subject, unit in seconds or bytes, `_total` for counters.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its doc comment.
    pub help: &'static str,
}

/// Makes a constant of each metric's name, and `ALL`, the table of them.
///
/// ```
/// spendfuse_metrics::table! {
///     /// Orders shipped.
///     counter SHIPPED = "shop_shipped_total";
///     /// Time from order to door.
///     histogram(&[60.0, 3600.0]) DELIVERY = "shop_delivery_seconds";
/// }
/// assert_eq!(SHIPPED, "shop_shipped_total");
/// assert_eq!(ALL[1].help.trim(), "Time from order to door.");
/// ```
#[macro_export]
macro_rules! table {
    (@kind counter) => { $crate::Kind::Counter };
    (@kind gauge) => { $crate::Kind::Gauge };
    (@kind histogram $buckets:expr) => { $crate::Kind::Histogram($buckets) };
    ($(
        $(#[doc = $help:literal])+
        $kind:ident $(($buckets:expr))? $constant:ident = $name:literal;
    )+) => {
        $(
            $(#[doc = $help])+
            pub const $constant: &str = $name;
        )+
        /// Every metric of this table.
        pub const ALL: &[$crate::Metric] = &[$(
            $crate::Metric {
                name: $name,
                kind: $crate::table!(@kind $kind $($buckets)?),
                help: concat!($($help),+),
            }
        ),+];
    };
}
