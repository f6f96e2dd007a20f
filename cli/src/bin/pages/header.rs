// SPDX-License-Identifier: LGPL-2.1-or-later
//! The headers' functions and types with their comments.
//!
//! No C parser: the headers are generated, and look as cbindgen makes them. What is documented begins with a comment of
//! its own at the beginning of a line, and the declaration that follows ends at the first semicolon outside of braces.

/// A function or a type.
#[derive(Debug, Clone)]
pub struct Item {
    pub name: String,
    /// As it stands in the header, without comments.
    pub declaration: String,
    /// The comment's lines, without what makes them one.
    pub comment: Vec<String>,
    /// Of a type: its members or values, with their comments.
    pub members: Vec<(String, Vec<String>)>,
    pub is_function: bool,
}

/// Everything in a header that is documented.
pub fn items(header: &str) -> Vec<Item> {
    let mut lines = header.lines();
    let mut items = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with("/**") {
            let comment = comment(line, &mut lines);
            items.extend(item(comment, &mut lines));
        }
    }
    items
}

/// A comment from its first line on.
fn comment<'a>(first: &'a str, lines: &mut impl Iterator<Item = &'a str>) -> Vec<String> {
    let first = first.trim().trim_start_matches("/**");
    if let Some(text) = first.strip_suffix("*/") {
        return vec![text.trim().to_owned()];
    }
    let text = |line: &str| line.trim().trim_start_matches('*').strip_prefix(' ').unwrap_or_default().to_owned();
    lines.take_while(|line| line.trim() != "*/").map(text).collect()
}

fn item<'a>(text: Vec<String>, lines: &mut impl Iterator<Item = &'a str>) -> Option<Item> {
    let (mut declaration, mut members, mut depth) = (String::new(), Vec::new(), 0);
    let mut of_member = None;
    while let Some(line) = lines.next() {
        if line.trim().starts_with("/**") {
            of_member = Some(comment(line, lines));
            continue;
        }
        if declaration.is_empty() && line.starts_with("#define") {
            // Those that use it say what it is.
            return None;
        }
        // What isn't for applications.
        let line = line.trim_end().replace("LIBXL_EXTERNAL_CALLERS_ONLY", "");
        if !line.trim().is_empty() && line.trim() != ";" {
            declaration.push_str(line.trim_end());
            declaration.push('\n');
        }
        depth += line.matches('{').count();
        depth -= line.matches('}').count().min(depth);
        if let Some(text) = of_member.take() {
            members.push((member(&line), text));
        }
        if depth == 0 && line.trim_end().ends_with(';') {
            break;
        }
    }
    let declaration = declaration.trim_end().trim_end_matches(';').to_owned() + ";";
    let is_type = ["typedef", "struct", "enum", "union"].iter().any(|word| declaration.starts_with(word));
    let is_function =
        declaration.contains('(') && !(is_type && (declaration.contains('{') || declaration.starts_with("typedef")));
    let name = if is_function {
        last_word(declaration.split('(').next()?)
    } else if declaration.starts_with("typedef") {
        last_word(declaration.trim_end_matches(';'))
    } else {
        last_word(declaration.split(['{', ';']).next()?)
    };
    (!name.is_empty()).then_some(Item { name, declaration, comment: text, members, is_function })
}

/// The name of a member, a function pointer's too, or of a value.
fn member(line: &str) -> String {
    let line = line.trim().trim_end_matches([',', ';']);
    match line.split_once("(*") {
        Some((_, rest)) => rest.split(')').next().unwrap_or_default().to_owned(),
        None => last_word(line.split(" = ").next().unwrap_or_default()),
    }
}

fn last_word(text: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.trim_end().rsplit(|letter| !is_part(letter)).next().unwrap_or_default().to_owned()
}
