"""One llama.cpp server until it is ended: `model_server.py MODEL PORT [--embedding | --turns]`.

Prints one line of JSON with its URL when it listens.
"""

import json
import signal
import sys

import xllamacpp

# Gemma's way of writing a conversation, which the model's file does not hold: without it llama.cpp writes ChatML, whose
# marks are plain text to this vocabulary and melt with the texts beside them.
TURNS = (
    "{{ bos_token }}{% for message in messages %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{{ message.content | trim }}<end_of_turn>\n{% endfor %}<start_of_turn>model\n"
)


def main() -> None:
    model, port = sys.argv[1], int(sys.argv[2])
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.endpoint_metrics = True
    # One thread is faster than two where the cores are shared with the gateway, Redis and the client.
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.n_parallel = 2
    params.n_ctx = 4096
    # A prompt is worked off in small pieces, so that a client's leaving is noticed between two of them.
    params.n_batch = 64
    params.n_ubatch = 64
    params.verbosity = 0
    if "--turns" in sys.argv[3:]:
        params.chat_template = TURNS
    if "--embedding" in sys.argv[3:]:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        # An embedding needs its whole input in one piece.
        params.n_batch = params.n_ubatch = 512
    server = xllamacpp.Server(params)
    print(json.dumps({"url": server.listening_address}), flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    # Blocked before the server starts its threads, which inherit it: the signal waits for sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
