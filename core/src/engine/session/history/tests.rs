use super::*;

const LIMITS: Limits = Limits { context_size: 16, n_vocab: 100, can_share: true };

/// A history of 4 sequences whose first rows come from `rows`: token and
/// sequences.
fn history(rows: &[(TokenId, &[i32])]) -> History {
    let mut history = History::new(4);
    append(&mut history, rows).unwrap();
    history
}

fn append(history: &mut History, rows: &[(TokenId, &[i32])]) -> Result<Vec<Row>, MullamaError> {
    let mut batch = Batch::new();
    for (token, seq_ids) in rows {
        let position =
            usize::try_from(seq_ids[0]).map_or(0, |id| history.sequences.get(id).map_or(0, |h| h.cells.len()));
        let earlier = batch.rows.iter().filter(|row| row.seq_ids.contains(&seq_ids[0])).count();
        batch.add(*token, position + earlier, seq_ids, false);
    }
    history.append(&[batch], &LIMITS)
}

fn row(token: TokenId, position: usize, seq_ids: &[usize]) -> Row {
    Row { token, position, seq_ids: seq_ids.to_vec(), output: false }
}

fn refused(result: Result<Vec<Row>, MullamaError>, field: &str) {
    match result {
        Err(MullamaError::InvalidInput { field: f, .. }) => assert_eq!(f, field),
        other => panic!("expected {field} to be refused, got {other:?}"),
    }
}

#[test]
fn rows_come_in_the_order_of_the_batches_after_what_is_pending() {
    let mut history = History::new(2);
    history.push(0, 7);
    let mut batch = Batch::new();
    batch.add_sequence(0, &[8, 9]);
    batch.add(5, 0, &[1], true);
    let rows = history.append(&[batch], &LIMITS).unwrap();
    let outputs: Vec<bool> = rows.iter().map(|row| row.output).collect();
    assert_eq!(outputs, [false, false, true, true]);
    let places: Vec<_> = rows.iter().map(|row| (row.token, row.position, row.seq_ids[0])).collect();
    assert_eq!(places, [(7, 0, 0), (8, 1, 0), (9, 2, 0), (5, 0, 1)]);
    assert_eq!((history.len(0), history.len(1), history.evaluated(0)), (3, 1, 0));
}

#[test]
fn a_bad_row_anywhere_leaves_the_history_as_it_was() {
    let mut before = history(&[(1, &[0])]);
    for (row, field) in [
        ((100, 1, &[0][..]), "token"),
        ((-1, 1, &[0][..]), "token"),
        ((1, 0, &[0][..]), "position"),
        ((1, 2, &[0][..]), "position"),
        ((1, 0, &[][..]), "seq_ids"),
        ((1, 0, &[4][..]), "seq_ids"),
        ((1, 0, &[-1][..]), "seq_ids"),
        ((1, 0, &[1, 1][..]), "seq_ids"),
        ((1, 1, &[0, 1][..]), "seq_ids"),
    ] {
        let mut good = Batch::new();
        good.add_sequence(3, &[1, 2]);
        let mut bad = Batch::new();
        bad.add(row.0, row.1, row.2, false);
        refused(before.append(&[good, bad], &LIMITS), field);
        assert_eq!((before.n_rows(), before.len(3)), (1, 0));
    }
}

#[test]
fn the_limit_counts_shared_rows_once() {
    let mut history = history(&[(1, &[0, 1, 2, 3])]);
    let mut batch = Batch::new();
    for position in 1..16 {
        batch.add(2, position, &[0, 1, 2, 3], false);
    }
    history.append(&[batch], &LIMITS).unwrap();
    assert_eq!(history.n_rows(), 16);
    match append(&mut history, &[(1, &[0])]) {
        Err(MullamaError::PromptTooLong { tokens: 17, limit: 16 }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn sequences_with_a_state_share_nothing() {
    let mut batch = Batch::new();
    batch.add(1, 0, &[0, 1], false);
    let limits = Limits { can_share: false, ..LIMITS };
    let result = History::new(2).append(&[batch], &limits);
    assert_eq!(result.unwrap_err().code(), "unsupported");
}

#[test]
fn a_shared_row_is_pending_once_and_brings_the_others_along() {
    let history = history(&[(1, &[0, 1]), (2, &[0]), (3, &[1])]);
    let expected = [row(1, 0, &[0, 1]), row(2, 1, &[0]), row(3, 1, &[1])];
    assert_eq!(history.pending(&[0]), expected);
    assert_eq!(history.sharing(1), [0, 1]);
    assert_eq!(history.sharing(2), [2]);
}

#[test]
fn a_row_that_others_keep_becomes_a_row_of_its_own() {
    let mut history = history(&[(1, &[0, 1]), (2, &[0, 1])]);
    history.mark_evaluated(0, 2);
    history.mark_evaluated(1, 2);
    history.forget_after(0, 1);
    assert_eq!(history.pending(&[0]), [row(2, 1, &[0])]);
    assert_eq!(history.n_rows(), 3);
    assert!(history.pending(&[1]).is_empty());
}

#[test]
fn sequences_that_hold_the_same_tokens_come_to_share_them() {
    let mut history = history(&[(1, &[0]), (2, &[0]), (1, &[1]), (2, &[1])]);
    history.mark_evaluated(0, 2);
    history.mark_evaluated(1, 2);
    let rows = append(&mut history, &[(3, &[0, 1])]).unwrap();
    assert_eq!(rows, [row(3, 2, &[0, 1])]);
    assert_eq!(history.n_rows(), 5);
    history.share(0, 1, 2);
    assert_eq!(history.n_rows(), 3);
    assert_eq!(history.tokens(1), [1, 2, 3]);
}

#[test]
fn a_shorter_history_has_no_more_evaluated_than_it_holds() {
    let mut history = history(&[(1, &[0]), (2, &[0]), (3, &[0])]);
    history.mark_evaluated(0, 3);
    history.truncate(0, 1);
    assert_eq!((history.len(0), history.evaluated(0)), (1, 1));
}
