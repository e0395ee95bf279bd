//! Text from a file, made fit for a message.

/// As much of `text` as fits a line, without what could begin another.
pub(crate) fn one_line(text: &str) -> String {
    cut(text, 160)
}

/// As [`one_line`], for a whole message.
pub(crate) fn one_message(text: &str) -> String {
    cut(text, 800)
}

fn cut(text: &str, longest: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut line: String = text.chars().take(longest).map(plain).collect();
    if text.chars().nth(longest).is_some() {
        line.push('…');
    }
    line
}
