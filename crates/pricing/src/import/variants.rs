//! Entries whose name is a model with a quality and a size in front: `hd/1024-x-1792/dall-e-3`.

/// A model, and for what quality and size the entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    /// The model proper.
    pub(super) model: String,
    /// Empty = any.
    pub(super) quality: String,
    /// As in `1024x1792`; empty = any.
    pub(super) size: String,
}

const QUALITIES: &[&str] = &["low", "medium", "high", "xhigh", "max", "hd", "standard"];

/// The variant that `name` describes; `None` where no part of it is a size.
pub(super) fn of(name: &str) -> Option<Variant> {
    let mut variant = Variant {
        model: String::new(),
        quality: String::new(),
        size: String::new(),
    };
    let mut model = Vec::new();
    for part in name.split('/') {
        if let Some((width, height)) = part.split_once("-x-") {
            variant.size = format!("{width}x{height}");
        } else if QUALITIES.contains(&part) {
            variant.quality = part.to_owned();
        } else if !part.ends_with("-steps") {
            model.push(part);
        }
    }
    variant.model = model.join("/");
    (!variant.size.is_empty() && !variant.model.is_empty()).then_some(variant)
}

impl Variant {
    /// Pixels of one image; `None` where the size is not given in pixels.
    pub(super) fn pixels(&self) -> Option<u64> {
        let (width, height) = self.size.split_once('x')?;
        width.parse::<u64>().ok()?.checked_mul(height.parse().ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_and_size_are_read_from_the_path() {
        let variant = of("hd/1024-x-1792/dall-e-3").unwrap();
        assert_eq!(variant.model, "dall-e-3");
        assert_eq!(
            (variant.quality.as_str(), variant.size.as_str()),
            ("hd", "1024x1792")
        );
        assert_eq!(variant.pixels(), Some(1_835_008));
        assert_eq!(of("meta/llama-3"), None);
        assert_eq!(of("standard"), None);
    }
}
