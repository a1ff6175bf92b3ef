"""Streams an answer without asyncio: sync_hello.py MODEL.gguf [QUESTION]"""

import sys

import mullama.sync

# The chat format of SmolLM2 and of many other models (ChatML).
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def main(path: str, question: str = "What is a llama? Answer in two sentences.") -> None:
    with mullama.sync.Model.load(path) as model:
        for token in model.generate_stream(CHAT.format(question), max_tokens=200, temperature=0.2):
            print(token.text, end="", flush=True)
        print()


if __name__ == "__main__":
    main(*sys.argv[1:])
