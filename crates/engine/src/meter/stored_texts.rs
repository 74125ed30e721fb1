//! Names of an estimate as they are written.

use minicbor::{Decode, Decoder};
use spendfuse_domain::{Attribution, FixedDimension};

use super::stored_call::{ARRAY, TEXT, head};

/// Some texts.
#[derive(Debug)]
pub(super) struct Texts(pub(super) Vec<String>);

impl Texts {
    /// Values by their dimensions' numbers, without the empty ones at the end.
    pub(super) fn of_names(who: &Attribution<'_>) -> Self {
        let texts = who.texts();
        let last = (0..FixedDimension::COUNT).rfind(|place| !texts[*place].is_empty());
        let texts = texts.into_iter().take(last.map_or(0, |last| last + 1));
        Self(texts.map(|text| text.to_string()).collect())
    }

    /// Names and values of tags, in turn.
    pub(super) fn of_tags(who: &Attribution<'_>) -> Self {
        let tags = who.tags.iter();
        let texts = tags.flat_map(|(name, value)| [name.to_string(), value.to_string()]);
        Self(texts.collect())
    }

    /// Whom both tell of.
    pub(super) fn attribution(Self(names): &Self, Self(tags): &Self) -> Attribution<'static> {
        let tags = tags.chunks_exact(2);
        let tags = tags.map(|tag| (tag[0].clone().into(), tag[1].clone().into()));
        Attribution::of(tags.collect(), |dimension| {
            let name = names.get(dimension as usize);
            name.cloned().unwrap_or_default().into()
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        head(out, ARRAY, self.0.len() as u64);
        for text in &self.0 {
            head(out, TEXT, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

impl<'b, C> Decode<'b, C> for Texts {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let texts = decoder.array_iter::<String>()?;
        texts.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
impl<C> minicbor::Encode<C> for Texts {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.array(self.0.len() as u64)?;
        for text in &self.0 {
            encoder.str(text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags_come_back_each_where_it_was() {
        let who = Attribution {
            workspace: "acme".into(),
            session: "s-1".into(),
            tags: vec![("team".into(), "blue".into()), ("zone".into(), "".into())],
            ..Attribution::default()
        };
        let written = [Texts::of_names(&who), Texts::of_tags(&who)].map(|texts| {
            let mut out = Vec::new();
            texts.write(&mut out);
            minicbor::decode::<Texts>(&out).unwrap()
        });
        let [names, tags] = &written;
        assert_eq!(Texts::attribution(names, tags), who);
    }
}
