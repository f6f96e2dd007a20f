// SPDX-License-Identifier: LGPL-2.1-or-later
//! Section 3 of the manual, made of the headers' comments: a page for each function and type, or for several that belong
//! together; the others of such a page are links to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::header::Item;

/// Functions that share the page of the first. Whoever reads of one wants to know of the others.
const GROUPS: [&[&str]; 9] = [
    &["libxl_ctx_alloc", "libxl_ctx_free"],
    &["libxl_event_wait", "libxl_event_check"],
    &["libxl_evenable_domain_death", "libxl_evdisable_domain_death"],
    &["libxl_evenable_disk_eject", "libxl_evdisable_disk_eject"],
    &["libxl_osevent_beforepoll", "libxl_osevent_afterpoll"],
    &["libxl_osevent_register_hooks", "libxl_osevent_occurred_fd", "libxl_osevent_occurred_timeout"],
    &["libxl_evenable_domain_state", "libxl_evdisable_domain_state"],
    &["xlevent_event_wait", "xlevent_wait_cancel"],
    &["xlevent_device_remove", "xlevent_devices_remove", "xlevent_device_wait_ready"],
];

/// Groups by the beginning of their names.
const FAMILIES: [&str; 2] = ["xlevent_subscriber_", "xlevent_pollset_"];

/// A header's items, and how a program includes it.
pub struct Header {
    pub name: &'static str,
    pub items: Vec<Item>,
}

/// What stands in the title line.
pub struct Title<'a> {
    pub date: &'a str,
    pub source: &'a str,
}

/// The pages, by their names without the section.
pub fn pages(headers: &[Header], title: &Title<'_>) -> BTreeMap<String, String> {
    let mut pages: BTreeMap<String, Vec<(&str, &Item)>> = BTreeMap::new();
    for header in headers {
        for item in header.items.iter().filter(|item| item.is_function || is_for_applications(item)) {
            pages.entry(page_of(item, header)).or_default().push((header.name, item));
        }
    }
    let names: BTreeSet<&str> = pages.values().flatten().map(|(_, item)| item.name.as_str()).collect();
    let mut written = BTreeMap::new();
    for (name, items) in &mut pages {
        // A function before a type of the same name; the page's own first.
        items.sort_by_key(|(_, item)| (!item.is_function, item.name != *name));
        for (_, item) in items.iter().filter(|(_, item)| item.name != *name) {
            written.insert(item.name.clone(), format!(".so man3/{name}.3\n"));
        }
        written.insert(name.clone(), page(name, items, title, &names));
    }
    written
}

/// Types with something to say. The library's own names begin with two underscores behind the prefix, and what <libxl.h> has of
/// disks is documented there.
fn is_for_applications(item: &Item) -> bool {
    let of_disks = ["libxl_disk_", "libxl_device_disk", "libxl_defbool", "libxl_ev_link", "libxl_uuid"];
    !item.members.is_empty() && !item.name.contains("__") && !of_disks.iter().any(|name| item.name.starts_with(name))
}

fn page_of(item: &Item, header: &Header) -> String {
    if let Some(group) = GROUPS.iter().find(|group| group.contains(&item.name.as_str())) {
        return group[0].to_owned();
    }
    let family = FAMILIES.iter().find(|family| item.name.starts_with(*family));
    let first =
        family.and_then(|family| header.items.iter().find(|item| item.is_function && item.name.starts_with(family)));
    first.unwrap_or(item).name.clone()
}

fn page(name: &str, items: &[(&str, &Item)], title: &Title<'_>, names: &BTreeSet<&str>) -> String {
    let mut out = format!(
        ".\\\" Generated from the header's comments.\n.TH {} 3 {} \"{}\" \"xlevent\"\n.SH NAME\n",
        name.to_uppercase(),
        title.date,
        title.source
    );
    let mut named: Vec<&str> = Vec::new();
    items
        .iter()
        .for_each(|(_, item)| named.extend((!named.contains(&item.name.as_str())).then_some(item.name.as_str())));
    let first = items.first().map(|(_, item)| summary(item)).unwrap_or_default();
    line(&mut out, &format!("{} \\- {}", named.join(", "), inline(&first)));
    out.push_str(".SH SYNOPSIS\n.nf\n");
    let mut included = "";
    for (header, item) in items {
        if *header != included {
            let _ = writeln!(out, "\\fB#include <{header}>\\fR");
            included = header;
        }
        let _ = writeln!(out, "\n{}", code(&item.declaration));
    }
    out.push_str("\nLink with \\fI\\-lxlevent\\fR\n.fi\n.SH DESCRIPTION\n");
    let several = items.len() > 1;
    for (_, item) in items {
        if several {
            let _ = writeln!(out, ".SS {}", item.name);
        }
        paragraphs(&mut out, part(item, Part::Description));
        for (member, text) in &item.members {
            let _ = writeln!(out, ".TP\n\\fB{member}\\fR");
            paragraphs(&mut out, text.clone());
        }
    }
    for (heading, which) in [("RETURN VALUE", Part::Returns), ("CAVEATS", Part::Safety)] {
        let parts: Vec<_> =
            items.iter().map(|(_, item)| (item, part(item, which))).filter(|(_, text)| !text.is_empty()).collect();
        if !parts.is_empty() {
            let _ = writeln!(out, ".SH \"{heading}\"");
        }
        for (item, text) in parts {
            if several {
                let _ = writeln!(out, ".SS {}", item.name);
            }
            paragraphs(&mut out, text);
        }
    }
    let said: String =
        items.iter().flat_map(|(_, item)| item.comment.iter().chain([&item.declaration])).cloned().collect();
    let words: BTreeSet<&str> = said.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').collect();
    let others = names.iter().filter(|other| words.contains(*other) && !named.contains(*other));
    let others: Vec<String> =
        others.map(|other| format!("\\fB{other}\\fR(3)")).chain(["\\fBxlevent\\fR(7)".to_owned()]).collect();
    let _ = writeln!(out, ".SH \"SEE ALSO\"\n{}", others.join(",\n"));
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Description,
    Returns,
    Safety,
}

/// The first sentence.
fn summary(item: &Item) -> String {
    let first: Vec<&str> = item.comment.iter().take_while(|line| !line.is_empty()).map(String::as_str).collect();
    let first = first.join(" ");
    let end = first.find(". ").unwrap_or(first.len());
    first[..end].trim_end_matches(['.', ':']).to_owned()
}

/// The paragraphs of a comment that belong to a part.
fn part(item: &Item, wanted: Part) -> Vec<String> {
    let (mut part, mut begins, mut lines) = (Part::Description, true, Vec::new());
    for text in &item.comment {
        if text == "# Safety" {
            part = Part::Safety;
            continue;
        }
        if begins && part != Part::Safety {
            part = if text.starts_with("Returns ") { Part::Returns } else { Part::Description };
        }
        begins = text.is_empty();
        if part == wanted {
            lines.push(text.clone());
        }
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// Comments' paragraphs and lists.
fn paragraphs(out: &mut String, lines: Vec<String>) {
    let mut in_list = false;
    let mut begins = false;
    for text in lines.iter().skip_while(|line| line.is_empty()) {
        if text.is_empty() {
            begins = true;
            continue;
        }
        if let Some(entry) = text.strip_prefix("- ") {
            out.push_str(".IP \\(bu 3\n");
            line(out, &inline(entry));
            in_list = true;
        } else {
            if begins && !(in_list && text.starts_with("  ")) {
                out.push_str(if in_list { ".PP\n" } else { ".sp\n" });
                in_list = false;
            }
            line(out, &inline(text.trim_start()));
        }
        begins = false;
    }
}

/// A line of text, of which nothing is taken for a request.
fn line(out: &mut String, text: &str) {
    if text.starts_with(['.', '\'']) {
        out.push_str("\\&");
    }
    out.push_str(text);
    out.push('\n');
}

/// Text, with what is code in it set off.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (index, piece) in text.split('`').enumerate() {
        if index % 2 == 1 {
            let _ = write!(out, "\\fB{}\\fR", escape(piece));
        } else {
            out.push_str(&escape(piece));
        }
    }
    out
}

fn code(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '~' => out.push_str("\\(ti"),
            '^' => out.push_str("\\(ha"),
            '\'' => out.push_str("\\(aq"),
            _ => out.push(letter),
        }
    }
    out
}
