//! A text cut into windows: window w of context T reads bytes wT … wT+T−1 and is
//! scored on bytes wT+1 … wT+T. The last one may be shorter, and every byte but
//! the first is a target once, whatever the context.

/// The windows of one text of at least two bytes.
pub(super) struct Windows<'a> {
    pub(super) text: &'a [u8],
    context: usize,
}

impl<'a> Windows<'a> {
    pub(super) fn new(text: &'a [u8], context: usize) -> Self {
        Windows { text, context }
    }

    pub(super) fn targets(&self) -> usize {
        self.text.len() - 1
    }

    pub(super) fn count(&self) -> usize {
        self.targets().div_ceil(self.context)
    }

    /// What row t of the window is scored on.
    pub(super) fn targets_of(&self, window: usize) -> &'a [u8] {
        let start = window * self.context;
        &self.text[start + 1..=(start + self.context).min(self.targets())]
    }

    /// The number of rows that are scored.
    pub(super) fn rows(&self, window: usize) -> usize {
        self.targets_of(window).len()
    }

    /// Writes what the model reads: the window, then zeros.
    pub(super) fn write(&self, window: usize, tokens: &mut [u8]) {
        let start = window * self.context;
        let (bytes, rest) = tokens.split_at_mut(self.rows(window));
        bytes.copy_from_slice(&self.text[start..start + bytes.len()]);
        rest.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_but_the_first_is_a_target_once() {
        let text: Vec<u8> = (0..=40).collect();
        for length in 2..=text.len() {
            for context in 1..=45 {
                let windows = Windows::new(&text[..length], context);
                let mut targets = Vec::new();
                for window in 0..windows.count() {
                    let mut tokens = vec![9; context];
                    windows.write(window, &mut tokens);
                    let rows = windows.rows(window);
                    assert!(rows == context || window + 1 == windows.count());
                    // Row t reads the byte before its target.
                    for (token, target) in tokens.iter().zip(windows.targets_of(window)) {
                        assert_eq!(token + 1, *target);
                    }
                    assert!(tokens[rows..].iter().all(|&token| token == 0));
                    targets.extend_from_slice(windows.targets_of(window));
                }
                assert_eq!(targets, text[1..length]);
            }
        }
    }
}
