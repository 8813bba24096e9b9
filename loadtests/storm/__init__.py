"""A storm of valid requests of every kind: `python -m loadtests.storm`.

Random requests from the whole schema, many at once, on a server with too little room for them.
Each must be answered whole, the engine must live, and at the end the server must hold nothing of
them. A failure is shrunk to the smallest request that still shows it. A number repeats a run: it
and a request's own number make that request.
"""
