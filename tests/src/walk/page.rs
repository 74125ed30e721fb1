//! The fenced blocks of a page.

/// Commands, and what they print.
#[derive(Debug, PartialEq, Eq)]
pub struct Snippet {
    /// Lines for a shell.
    pub commands: String,
    /// What is printed; `None` where the page does not say.
    pub answer: Option<String>,
}

#[derive(Debug)]
struct Block {
    section: String,
    language: String,
    /// The line of text before it, empty where it follows another block.
    before: String,
    text: String,
}

/// The snippets of the named sections, in the page's order; no names = all.
pub fn snippets(page: &str, sections: &[&str]) -> Vec<Snippet> {
    let mut snippets: Vec<Snippet> = Vec::new();
    let mut awaits_answer = false;
    let wanted = |block: &Block| sections.is_empty() || sections.contains(&block.section.as_str());
    for block in blocks(page).into_iter().filter(wanted) {
        let is_answer = awaits_answer && block.before.is_empty();
        awaits_answer = block.language == "sh";
        if awaits_answer {
            snippets.push(Snippet {
                commands: block.text,
                answer: None,
            });
        } else if let Some(snippet) = snippets.last_mut().filter(|_| is_answer) {
            snippet.answer = Some(block.text);
        }
    }
    snippets
}

/// Files that the page shows: a fenced `yaml` block after a line that ends with `(PATH):`.
pub fn yaml_files(page: &str) -> Vec<(String, String)> {
    let yaml = blocks(page)
        .into_iter()
        .filter(|block| block.language == "yaml");
    yaml.filter_map(|block| {
        let path = block.before.strip_suffix("):")?.rsplit('(').next()?;
        Some((path.to_owned(), block.text))
    })
    .collect()
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut section, mut before) = (String::new(), String::new());
    let mut is_inside = false;
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            is_inside = !is_inside;
            if is_inside {
                blocks.push(Block {
                    section: section.clone(),
                    language: language.trim().to_owned(),
                    before: std::mem::take(&mut before),
                    text: String::new(),
                });
            }
            continue;
        }
        if is_inside {
            let text = &mut blocks.last_mut().expect("a block has begun").text;
            text.push_str(line);
            text.push('\n');
        } else if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut section);
        } else if !line.trim().is_empty() {
            line.trim_end().clone_into(&mut before);
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_paired_with_the_block_that_follows_at_once() {
        let page = "## A\n```sh\necho 1\n```\n```text\n1\n```\n\n```sh\ntrue\n```\nThis is a file (a.yaml):\n\n```yaml\nx: 1\n```\n## B\n```sh\necho 2\n```\n";
        let snippet = |commands: &str, answer: Option<&str>| Snippet {
            commands: commands.to_owned(),
            answer: answer.map(str::to_owned),
        };
        assert_eq!(
            snippets(page, &["A"]),
            [snippet("echo 1\n", Some("1\n")), snippet("true\n", None)]
        );
        assert_eq!(snippets(page, &[]).len(), 3);
        let file = ("a.yaml".to_owned(), "x: 1\n".to_owned());
        assert_eq!(yaml_files(page), [file]);
    }
}
