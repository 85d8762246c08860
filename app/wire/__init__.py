"""The wire: the public JSON of requests, responses and socket frames, and its bytes.

`requests`, `commands` and `client_frames` validate the input of callers; `shapes` and `frames` build the output;
`encoding` converts between JSON and bytes. Nothing here decides, stores or sends.
"""
