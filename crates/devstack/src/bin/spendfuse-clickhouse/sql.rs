//! As much of SQL as the HTTP interface must understand: which statement it is, where an insert's
//! data begins, and which output format was asked for.

/// What a request's statement is. Texts are parts of the statement.
#[derive(Debug, PartialEq, Eq)]
pub enum Statement<'a> {
    /// An `INSERT … FORMAT X`, whose data follows.
    Insert {
        /// The statement up to `FORMAT`.
        sql: &'a str,
        /// The data's format.
        format: &'a str,
        /// Where the data that stands in the same text begins.
        data_at: usize,
    },
    /// A statement that only reads.
    Read {
        /// Whether it is a plain `SELECT`, whose result the engine can give in pieces.
        is_select: bool,
        /// `FORMAT X` at its end.
        format: Option<&'a str>,
    },
    /// A statement that changes the session it runs in.
    Session,
    /// Anything else.
    Other,
}

/// More than one statement in a request; ClickHouse's HTTP interface refuses that, the engine
/// does not.
#[derive(Debug, PartialEq, Eq)]
pub struct SeveralStatements;

/// Reads a statement. `text` may end in an insert's binary data.
pub fn classify(text: &[u8]) -> Result<Statement<'_>, SeveralStatements> {
    let mut words = Words::new(text);
    let Some(first) = words.next() else {
        return Ok(Statement::Other);
    };
    match first.upper().as_str() {
        "INSERT" => Ok(insert(text, words)),
        "SELECT" | "WITH" => read(words, true),
        "SHOW" | "DESCRIBE" | "DESC" | "EXPLAIN" | "EXISTS" | "FROM" | "(" => read(words, false),
        "SET" | "USE" => single(words, Statement::Session),
        "CREATE" => {
            let is_temporary = words.clone().next().is_some_and(|w| w.is("TEMPORARY"));
            single(
                words,
                if is_temporary {
                    Statement::Session
                } else {
                    Statement::Other
                },
            )
        }
        _ => single(words, Statement::Other),
    }
}

fn insert<'a>(text: &'a [u8], mut words: Words<'a>) -> Statement<'a> {
    while let Some(word) = words.next() {
        // `VALUES`, `SELECT` and `WITH` bring their rows in the statement itself: the engine
        // reads them.
        if word.depth == 0 && (word.is("VALUES") || word.is("SELECT") || word.is("WITH")) {
            return Statement::Other;
        }
        if word.depth == 0 && word.is("FORMAT") {
            let before = std::str::from_utf8(&text[..word.begin]);
            let (Ok(sql), Some(format)) = (before, words.next()) else {
                return Statement::Other;
            };
            if format.is("VALUES") {
                return Statement::Other;
            }
            return Statement::Insert {
                sql,
                format: format.text,
                data_at: data_begin(text, format.end),
            };
        }
    }
    Statement::Other
}

/// Blanks and one line end between the format's name and the data belong to neither.
fn data_begin(text: &[u8], after_name: usize) -> usize {
    let rest = &text[after_name..];
    let blanks = rest
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
        .count();
    let has_line_end = rest.get(blanks) == Some(&b'\n');
    after_name + blanks + usize::from(has_line_end)
}

fn read(mut words: Words<'_>, mut is_select: bool) -> Result<Statement<'_>, SeveralStatements> {
    let mut format = None;
    while let Some(word) = words.next() {
        if word.depth != 0 {
            continue;
        }
        if word.text == ";" {
            return match words.next() {
                None => Ok(Statement::Read { is_select, format }),
                Some(_) => Err(SeveralStatements),
            };
        }
        if word.is("FORMAT") {
            // `format(…)` is a function.
            let name = words.clone().next();
            format = name.map(|name| name.text).filter(|name| *name != "(");
        }
        // `WITH … INSERT` and `SELECT … INTO OUTFILE` write.
        if word.is("INSERT") || word.is("OUTFILE") {
            is_select = false;
        }
    }
    Ok(Statement::Read { is_select, format })
}

fn single<'a>(
    mut words: Words<'a>,
    statement: Statement<'a>,
) -> Result<Statement<'a>, SeveralStatements> {
    while let Some(word) = words.next() {
        if word.text == ";" && words.next().is_some() {
            return Err(SeveralStatements);
        }
    }
    Ok(statement)
}

/// A word, a quoted text or a sign, with the number of open brackets before it.
#[derive(Debug, Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    begin: usize,
    end: usize,
    depth: u32,
}

impl Word<'_> {
    fn is(&self, keyword: &str) -> bool {
        self.text.eq_ignore_ascii_case(keyword)
    }

    fn upper(&self) -> String {
        self.text.to_ascii_uppercase()
    }
}

/// Splits lazily: what follows an insert's format is not text.
#[derive(Debug, Clone)]
struct Words<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
}

impl<'a> Words<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let skipped = if rest.first().is_some_and(u8::is_ascii_whitespace) {
                1
            } else if rest.starts_with(b"--") || rest.starts_with(b"#!") || rest.starts_with(b"# ")
            {
                length_until(rest, b"\n")
            } else if rest.starts_with(b"/*") {
                length_until(rest, b"*/")
            } else {
                return;
            };
            self.at += skipped;
        }
    }

    fn quoted_length(rest: &[u8], quote: u8) -> usize {
        let mut at = 1;
        while at < rest.len() {
            if rest[at] == b'\\' {
                at += 2;
            } else if rest[at] == quote {
                // A doubled quote ends one text and begins the next: the same to us.
                return at + 1;
            } else {
                at += 1;
            }
        }
        rest.len()
    }
}

/// Bytes up to and including `mark`, or all.
fn length_until(rest: &[u8], mark: &[u8]) -> usize {
    rest.windows(mark.len())
        .position(|window| window == mark)
        .map_or(rest.len(), |position| position + mark.len())
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        self.skip_blanks_and_comments();
        let begin = self.at;
        let rest = &self.text[begin..];
        let first = *rest.first()?;
        let is_word_byte =
            |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 128;
        let length = match first {
            b'\'' | b'"' | b'`' => Self::quoted_length(rest, first),
            _ if is_word_byte(&first) => rest.iter().take_while(|byte| is_word_byte(byte)).count(),
            _ => 1,
        };
        let depth = self.depth;
        match first {
            b'(' | b'[' | b'{' => self.depth += 1,
            b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.at = begin + length;
        Some(Word {
            // Quoted texts in another encoding are of no interest here.
            text: std::str::from_utf8(&rest[..length]).unwrap_or("?"),
            begin,
            end: self.at,
            depth,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insert_is_cut_before_its_format_and_its_data_may_be_binary() {
        let text =
            b"INSERT INTO `a b`.t (x, y) SETTINGS z = 'FORMAT q' FORMAT RowBinary\n\xFF\x00(";
        assert_eq!(
            classify(text),
            Ok(Statement::Insert {
                sql: "INSERT INTO `a b`.t (x, y) SETTINGS z = 'FORMAT q' ",
                format: "RowBinary",
                data_at: text.len() - 3,
            })
        );
    }

    #[test]
    fn inserts_that_bring_their_rows_along_are_left_to_the_engine() {
        for text in [
            "insert into t values (1)",
            "INSERT INTO t FORMAT Values (1)",
            "INSERT INTO t SELECT 1 FORMAT Null",
        ] {
            assert_eq!(classify(text.as_bytes()), Ok(Statement::Other), "{text}");
        }
    }

    #[test]
    fn the_format_of_a_read_is_the_one_outside_brackets_and_quotes() {
        let read = |text: &'static str| classify(text.as_bytes());
        let expected = |format| {
            Ok(Statement::Read {
                is_select: true,
                format,
            })
        };
        assert_eq!(read("SELECT 1"), expected(None));
        assert_eq!(read("SELECT 1 FORMAT JSON;"), expected(Some("JSON")));
        assert_eq!(
            read("-- FORMAT A\nSELECT 'x FORMAT B', format(c) /* FORMAT D */"),
            expected(None)
        );
        assert_eq!(read("SELECT * FROM (SELECT 1 FORMAT A)"), expected(None));
    }

    #[test]
    fn a_second_statement_is_refused_but_a_last_semicolon_is_not() {
        assert_eq!(classify(b"SELECT 1; DROP TABLE t"), Err(SeveralStatements));
        assert_eq!(classify(b"DROP TABLE t; SELECT 1"), Err(SeveralStatements));
        assert_eq!(classify(b"DROP TABLE t; -- done\n"), Ok(Statement::Other));
        assert!(classify(b"SELECT ';'").is_ok());
    }

    #[test]
    fn statements_that_change_the_session_are_recognised() {
        assert_eq!(classify(b"SET max_threads = 1"), Ok(Statement::Session));
        assert_eq!(
            classify(b"CREATE TEMPORARY TABLE t (x Int8)"),
            Ok(Statement::Session)
        );
        assert_eq!(classify(b"CREATE TABLE t (x Int8)"), Ok(Statement::Other));
    }
}
