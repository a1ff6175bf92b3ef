//! Turns the bytes of tokens into text that may be shown: whole characters
//! only, and no part of a stop string. Pure: no FFI, no clock, no channels.
//! Nothing is allocated for a token, but when a buffer grows for the first time.

/// The text of one sequence that is not certain yet.
pub(crate) struct HoldBack {
    stops: Vec<String>,
    /// Whole characters that may be the beginning of a stop string.
    held: String,
    /// Bytes that were not looked at, and before them the beginning of a
    /// character whose other bytes are still to come; at most three bytes.
    bytes: Vec<u8>,
}

impl HoldBack {
    /// `stops` holds no empty string: `StreamConfig::validate` refuses them.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new(), bytes: Vec::new() }
    }

    /// Where to append the bytes of the next token, before `release`.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends to `text` what became certain. Gives the index of the stop string
    /// that has appeared, if one has; the text ends before it.
    pub(crate) fn release(&mut self, text: &mut String) -> Option<usize> {
        if self.stops.is_empty() {
            decode(&mut self.bytes, text);
            return None;
        }
        decode(&mut self.bytes, &mut self.held);
        let stop = self.first_stop();
        let n_certain = stop.map_or_else(|| self.held.len() - self.undecided(), |(start, _)| start);
        text.push_str(&self.held[..n_certain]);
        if stop.is_some() {
            self.held.clear();
            self.bytes.clear();
        } else {
            self.held.drain(..n_certain);
        }
        stop.map(|(_, index)| index)
    }

    /// Appends the rest to `text`, when nothing more comes. Bytes of an
    /// unfinished character become one U+FFFD.
    pub(crate) fn finish(&mut self, text: &mut String) {
        text.push_str(&self.held);
        self.held.clear();
        if !self.bytes.is_empty() {
            self.bytes.clear();
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }

    /// Where the first stop string begins, and which it is. The first to be
    /// complete wins, so that the result does not depend on how the text was
    /// cut into tokens; of two that end together, the longer.
    fn first_stop(&self) -> Option<(usize, usize)> {
        self.stops
            .iter()
            .enumerate()
            .filter_map(|(index, stop)| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start, index)))
            .min()
            .map(|(_, start, index)| (start, index))
    }

    /// Bytes at the end of `held` that are the beginning of a stop string.
    fn undecided(&self) -> usize {
        let held = self.held.as_bytes();
        self.stops
            .iter()
            .map(|stop| {
                let stop = stop.as_bytes();
                let longest = held.len().min(stop.len() - 1);
                (1..=longest).rev().find(|&n| held.ends_with(&stop[..n])).unwrap_or(0)
            })
            .max()
            .unwrap_or(0)
    }
}

/// Moves all whole characters of `bytes` to `text`. Bytes that can't begin or go
/// on a character become U+FFFD, as in `String::from_utf8_lossy`.
fn decode(bytes: &mut Vec<u8>, text: &mut String) {
    let mut rest = bytes.as_slice();
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
                break;
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                // The split is where the error says the valid text ends.
                text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                rest = after;
                let Some(invalid) = error.error_len() else { break };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &rest[invalid..];
            }
        }
    }
    let n_done = bytes.len() - rest.len();
    bytes.drain(..n_done);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `tokens` until a stop string appears; gives all text and the stop.
    fn run(stops: &[&str], tokens: &[&[u8]]) -> (Vec<String>, Option<usize>) {
        let mut hold = HoldBack::new(stops.iter().map(ToString::to_string).collect());
        let mut texts = Vec::new();
        for token in tokens {
            let mut text = String::new();
            hold.bytes().extend_from_slice(token);
            let stopped_by = hold.release(&mut text);
            texts.push(text);
            if stopped_by.is_some() {
                return (texts, stopped_by);
            }
        }
        let mut rest = String::new();
        hold.finish(&mut rest);
        texts.push(rest);
        (texts, None)
    }

    fn check(stops: &[&str], tokens: &[&[u8]], texts: &[&str], stop: Option<usize>) {
        let (got, got_stop) = run(stops, tokens);
        assert_eq!(got, texts);
        assert_eq!(got_stop, stop);
    }

    #[test]
    fn text_without_stops_passes_at_once() {
        check(&[], &[b"ab", b"c"], &["ab", "c", ""], None);
    }

    #[test]
    fn a_split_character_waits_for_its_last_byte() {
        let e = "é".as_bytes();
        check(&[], &[&e[..1], &e[1..]], &["", "é", ""], None);
        let smile = "🙂".as_bytes();
        check(&[], &[&smile[..1], &smile[1..3], &smile[3..], b"!"], &["", "", "🙂", "!", ""], None);
    }

    #[test]
    fn an_unfinished_character_at_the_end_becomes_a_replacement() {
        check(&[], &[b"a", &"é".as_bytes()[..1]], &["a", "", "\u{fffd}"], None);
    }

    #[test]
    fn invalid_bytes_become_replacements_and_lose_nothing_else() {
        check(&[], &[b"a\xffb", b"\x80"], &["a\u{fffd}b", "\u{fffd}", ""], None);
        check(&[], &[&[0xe2, 0x82], b"x"], &["", "\u{fffd}x", ""], None);
    }

    #[test]
    fn a_stop_string_inside_a_token_ends_the_text_before_it() {
        check(&["END"], &[b"one END two"], &["one "], Some(0));
    }

    #[test]
    fn a_stop_string_across_tokens_never_shows() {
        check(&["stop"], &[b"a s", b"to", b"p b"], &["a ", "", ""], Some(0));
    }

    #[test]
    fn a_beginning_that_leads_nowhere_is_released() {
        check(&["stop"], &[b"a sto", b"ne"], &["a ", "stone", ""], None);
        check(&["aab"], &[b"aa", b"a", b"b"], &["", "a", ""], Some(0));
    }

    #[test]
    fn what_is_held_at_the_end_is_released() {
        check(&["stop"], &[b"sto"], &["", "sto"], None);
    }

    #[test]
    fn the_first_complete_stop_string_wins_however_the_text_is_cut() {
        let stops = ["abcdef", "cd"];
        let (whole, stop) = run(&stops, &[b"abcdef"]);
        assert_eq!((whole.concat(), stop), ("ab".to_owned(), Some(1)));
        let (cut, stop) = run(&stops, &[b"a", b"b", b"c", b"d", b"e", b"f"]);
        assert_eq!((cut.concat(), stop), ("ab".to_owned(), Some(1)));
    }

    #[test]
    fn a_stop_string_of_many_bytes_a_character_is_found() {
        let text = "né là".as_bytes();
        let tokens: Vec<&[u8]> = text.chunks(1).collect();
        let (texts, stop) = run(&["là"], &tokens);
        assert_eq!((texts.concat().as_str(), stop), ("né ", Some(0)));
    }

    #[test]
    fn any_cut_of_a_text_gives_the_same_result() {
        let text = "the quick 🦊 fox — jumps over\nthe lazy dog";
        for stops in [&["over\nthe"][..], &["zzz", "🦊"], &["the lazy", "y d"], &[]] {
            let (whole, whole_stop) = run(stops, &[text.as_bytes()]);
            for size in 1..8 {
                let tokens: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                let (cut, cut_stop) = run(stops, &tokens);
                assert_eq!((whole.concat(), whole_stop), (cut.concat(), cut_stop), "{stops:?} by {size}");
            }
        }
    }
}
