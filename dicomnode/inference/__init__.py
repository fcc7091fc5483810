"""The engine service: resident engine processes, and what decides who computes what next. In full: docs/inference.md.

The workflow engine admits jobs, so many at once; this room alone orders, batches and overtakes among them. A job's
volume lies in files (`memory`), and comes slice by slice while it is decoded. It is given out in slabs, about a second
of work each, so that every slab's end is a point at which an urgent job may overtake. What has been computed is in
files too: a process that dies loses one slab, which is computed again by another one.

    ordering   pure: which slabs go next, by priority, patience, open engines and arrival
    dispatch   the threads that give slabs to engine processes, deadlines, and what becomes of slabs of dead processes
    process    an engine process: describe, prepare, run;  slabs: engines on slabs of files
    warm       which engines a process keeps open;         opening: from a name or a bundle to an engine
    gates      judged in processes of their own, slab by slab behind the engine
    stages     a chain of engines and its report;          memory: shared folders in /dev/shm, within a budget
    service    what the node asks: `EngineService`; and `run_chain` for commands that work on files
"""
