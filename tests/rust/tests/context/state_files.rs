//! State files that are cut, altered, foreign or in the way, and paths that
//! can't be written.

use crate::{KINDS, Tiny, config, generate, long_text};
use futures_util::FutureExt;
use mullama::{AsyncContext, AsyncModel, ContextOptions, MullamaError, TokenId};
use mullama_test_support::TinyModel;
use mullama_tests::{options, run};
use std::{fs, path::Path, sync::Arc};

/// A context with something in it, what it would generate next, and a state of
/// another history of the same model.
struct Case {
    context: AsyncContext,
    expected: Vec<TokenId>,
    state: Vec<u8>,
    tiny: Tiny,
}

impl Case {
    async fn new(model: TinyModel) -> Self {
        let tiny = Tiny::load(model).await;
        let path = tiny.dir.path().join("state");
        let mut context = tiny.context().await;
        generate(&mut context, &[300, 301], config(Some(1), 3)).await;
        context.save_state(&path).await.unwrap();
        let state = fs::read(&path).unwrap();
        let prompt = tiny.tokens(&long_text(100));
        let mut whole = tiny.context().await;
        generate(&mut whole, &prompt, config(Some(2), 10)).await;
        let expected = generate(&mut whole, &[], config(Some(2), 30)).await;
        context.clear().await.unwrap();
        generate(&mut context, &prompt, config(Some(2), 10)).await;
        Self { context, expected, state, tiny }
    }

    async fn refuses(&mut self, bytes: &[u8], what: &str) -> String {
        let path = self.tiny.dir.path().join("altered");
        fs::write(&path, bytes).unwrap();
        let n_past = self.context.n_past();
        let error = self.context.load_state(&path).await.unwrap_err();
        assert_eq!(error.code(), "state", "{what}: {error}");
        assert_eq!(self.context.n_past(), n_past);
        error.to_string()
    }

    /// The context goes on as if nothing had been.
    async fn is_unchanged(&mut self, what: &str) {
        let got = generate(&mut self.context, &[], config(Some(2), 30)).await;
        assert_eq!(got, self.expected, "{what}");
    }
}

#[test]
fn a_cut_file_is_refused_wherever_it_is_cut() {
    run(async {
        for kind in KINDS {
            let mut case = Case::new(TinyModel::new(kind).seed(5)).await;
            let len = case.state.len();
            let near_the_ends = (0..200).chain(len - 200..len);
            for n in near_the_ends.chain((0..40).map(|i| len * i / 40)) {
                let cut = case.state[..n].to_vec();
                case.refuses(&cut, &format!("{n} of {len} bytes")).await;
            }
            let longer = [case.state.as_slice(), &[0]].concat();
            case.refuses(&longer, "one byte more").await;
            case.is_unchanged("cut files").await;
        }
    });
}

#[test]
fn an_altered_file_is_refused_whichever_byte_it_is() {
    run(async {
        for kind in KINDS {
            let mut case = Case::new(TinyModel::new(kind).seed(5)).await;
            let len = case.state.len();
            let near_the_ends = (0..200).chain(len - 40..len);
            for place in near_the_ends.chain((0..60).map(|i| len * i / 60)) {
                let mut altered = case.state.clone();
                altered[place] ^= 0x10;
                case.refuses(&altered, &format!("byte {place} of {len}")).await;
            }
            case.is_unchanged("altered files").await;
            // The file itself was good.
            let path = case.tiny.dir.path().join("state");
            case.context.load_state(&path).await.unwrap();
            assert_eq!(case.context.n_past(), 5);
        }
    });
}

#[test]
fn files_of_another_kind_or_version_are_told_as_such() {
    run(async {
        let mut case = Case::new(TinyModel::llama().seed(5)).await;
        let text = case.refuses(b"{\"not\": \"a state\"}", "another kind").await;
        assert!(text.contains("it is not a state file of mullama"), "{text}");
        let mut newer = case.state.clone();
        newer[8] += 1;
        let text = case.refuses(&newer, "a newer version").await;
        assert!(text.contains("its format version is 2, this build reads 1"), "{text}");
        let model = fs::read(&case.tiny.path).unwrap();
        case.refuses(&model, "a model").await;
        case.refuses(b"", "an empty file").await;
        let folder = case.tiny.dir.path().to_owned();
        assert_eq!(case.context.load_state(&folder).await.unwrap_err().code(), "state");
        let missing = case.context.load_state(folder.join("missing")).await.unwrap_err();
        assert!(matches!(missing, MullamaError::Io { kind: std::io::ErrorKind::NotFound, .. }), "{missing:?}");
        case.is_unchanged("other files").await;
    });
}

#[test]
fn a_state_of_another_model_is_refused() {
    run(async {
        for kind in KINDS {
            let mut case = Case::new(TinyModel::new(kind).seed(5)).await;
            // The same sizes and metadata; only the weights differ.
            let other = Tiny::load(TinyModel::new(kind).seed(6)).await;
            let path = other.dir.path().join("state");
            let mut context = other.context().await;
            generate(&mut context, &[300, 301], config(None, 3)).await;
            context.save_state(&path).await.unwrap();
            let text = case.refuses(&fs::read(&path).unwrap(), "another model").await;
            assert!(text.contains("it belongs to another model"), "{text}");
            case.is_unchanged("a foreign state").await;
        }
    });
}

#[test]
fn the_same_model_elsewhere_is_the_same_model() {
    run(async {
        let case = Case::new(TinyModel::llama().seed(5)).await;
        let copy = case.tiny.dir.path().join("copy.gguf");
        fs::copy(&case.tiny.path, &copy).unwrap();
        let model = Arc::new(AsyncModel::load_with(&copy, options()).await.unwrap());
        let mut context = AsyncContext::new(model).await.unwrap();
        context.load_state(case.tiny.dir.path().join("state")).await.unwrap();
        assert_eq!(context.n_past(), 5);
    });
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    run(async {
        for kind in KINDS {
            let tiny = Tiny::load(TinyModel::new(kind).seed(5)).await;
            let path = tiny.dir.path().join("state");
            let mut context = tiny.context().await;
            let mut batch = mullama::Batch::new();
            batch.add_sequence(5, &[300; 40]);
            context.process_batch(vec![batch]).await.unwrap();
            context.save_state(&path).await.unwrap();

            let short = ContextOptions { context_size: Some(39), ..Default::default() };
            let few = ContextOptions { max_sequences: 5, ..Default::default() };
            for (options, reason) in [(short, "raise context_size"), (few, "raise max_sequences")] {
                let mut context = tiny.context_with(options).await;
                let expected = generate(&mut context, &[301], config(None, 10)).await;
                context.truncate(1).await.unwrap();
                let error = context.load_state(&path).await.unwrap_err();
                assert_eq!(error.code(), "state");
                assert!(error.to_string().contains(reason), "{error}");
                assert_eq!(generate(&mut context, &[], config(None, 10)).await, expected);
            }
        }
    });
}

#[test]
fn flash_attention_must_agree_and_the_memory_is_as_before_if_not() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let path = tiny.dir.path().join("state");
        let with = |flash_attention| ContextOptions { flash_attention: Some(flash_attention), ..Default::default() };
        let mut context = tiny.context_with(with(true)).await;
        generate(&mut context, &[300], config(None, 10)).await;
        context.save_state(&path).await.unwrap();
        let mut other = tiny.context_with(with(false)).await;
        let mut whole = tiny.context_with(with(false)).await;
        let expected = generate(&mut whole, &[301], config(None, 20)).await;
        let first = generate(&mut other, &[301], config(None, 10)).await;
        // llama.cpp itself finds this one, after its memory was given up.
        let error = other.load_state(&path).await.unwrap_err();
        assert_eq!(error.code(), "state");
        assert!(error.to_string().contains("it does not fit this context"), "{error}");
        assert_eq!([first, generate(&mut other, &[], config(None, 10)).await].concat(), expected);
    });
}

/// All that lies in a folder.
fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_path_that_cannot_be_written_leaves_nothing_behind() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5)).await;
        let mut context = tiny.context().await;
        generate(&mut context, &[300], config(None, 3)).await;
        let is_io = |result: Result<(), MullamaError>| assert_eq!(result.unwrap_err().code(), "io");
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        is_io(context.save_state(folder.join("missing/state")).await);
        is_io(context.save_state(folder).await);
        is_io(context.save_state("").await);
        fs::write(folder.join("file"), "mine").unwrap();
        is_io(context.save_state(folder.join("file/state")).await);
        let mut read_only = fs::metadata(folder.join("file")).unwrap().permissions();
        read_only.set_readonly(true);
        fs::set_permissions(folder.join("file"), read_only).unwrap();
        is_io(context.save_state(folder.join("file")).await);
        assert_eq!(fs::read(folder.join("file")).unwrap(), b"mine");
        assert_eq!(entries(folder), ["file"]);
        // As a rename would replace a device.
        #[cfg(unix)]
        {
            let socket = folder.join("socket");
            let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            is_io(context.save_state(&socket).await);
            std::os::unix::net::UnixStream::connect(&socket).unwrap();
            assert_eq!(entries(folder), ["file", "socket"]);
        }
        assert_eq!(generate(&mut context, &[], config(None, 3)).await.len(), 3);
    });
}

#[test]
fn a_save_replaces_the_file_whole_and_a_dropped_one_not_at_all() {
    run(async {
        let tiny = Tiny::load(TinyModel::llama().seed(5).n_layer(4).n_embd(256)).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let mut context = tiny.context().await;
        generate(&mut context, &[300; 900], config(None, 3)).await;
        fs::write(&path, "old").unwrap();
        for _ in 0..20 {
            // Dropped before its turn, or while it is under way.
            let _ = context.save_state(&path).now_or_never();
        }
        context.process_batch(Vec::new()).await.unwrap();
        assert_eq!(entries(folder.path()), ["state"]);
        context.save_state(&path).await.unwrap();
        assert_eq!(entries(folder.path()), ["state"]);
        let n_past = context.n_past();
        context.clear().await.unwrap();
        context.load_state(&path).await.unwrap();
        assert_eq!(context.n_past(), n_past);
    });
}
