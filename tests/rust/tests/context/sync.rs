//! The synchronous twin.

use mullama::{Batch, Context, ContextOptions, Model, ModelOptions, MullamaError, TokenId, TokenIter};
use mullama_test_support::TinyModel;
use mullama_tests::{exactly, options};
use tempfile::TempDir;

fn tiny() -> (Model, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    TinyModel::llama().seed(5).write_to(&path).unwrap();
    (Model::load_with(&path, ModelOptions { max_concurrent: 1, ..options() }).unwrap(), dir)
}

fn ids(stream: TokenIter) -> Vec<TokenId> {
    stream.map(|token| token.unwrap().token_id).collect()
}

#[test]
fn a_blocking_context_goes_on_saves_and_loads() {
    let (model, dir) = tiny();
    let mut context = Context::new(&model, ContextOptions::default()).unwrap();
    let prompt = model.tokenize("Once upon", true, false).unwrap();
    let expected = model.generate_with("Once upon", exactly(20)).unwrap().tokens;
    let first = ids(context.generate_stream_with(&prompt, exactly(8)).unwrap());
    context.save_state(dir.path().join("state")).unwrap();
    let rest = ids(context.generate_stream_with(&[], exactly(12)).unwrap());
    assert_eq!([first, rest.clone()].concat(), expected);
    context.clear().unwrap();
    assert_eq!(context.n_past(), 0);
    context.load_state(dir.path().join("state")).unwrap();
    assert_eq!(context.n_past(), prompt.len() + 8);
    assert_eq!(ids(context.generate_stream_with(&[], exactly(12)).unwrap()), rest);
    context.truncate(prompt.len()).unwrap();
    let mut batch = Batch::new();
    batch.add(300, prompt.len(), &[0], true);
    assert_eq!(context.process_batch(vec![batch]).unwrap()[0].len(), 1);
}

#[test]
fn a_blocking_contexts_calls_do_not_wait_for_an_unread_stream() {
    let (model, _dir) = tiny();
    let mut context = Context::new(&model, ContextOptions::default()).unwrap();
    let unread = context.generate_stream_with(&[300], exactly(40).buffer_size(1)).unwrap();
    context.truncate(0).unwrap();
    let closed = context.generate_stream_with(&[300], exactly(400).buffer_size(1)).unwrap();
    model.close();
    assert_eq!(ids(unread).len(), 40);
    let last = closed.last().unwrap();
    assert!(matches!(last, Err(MullamaError::Closed(_))), "{last:?}");
    assert_eq!(Context::new(&model, ContextOptions::default()).unwrap_err().code(), "closed");
}
