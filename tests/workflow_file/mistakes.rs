//! Files with mistakes, each under the name of the snapshot that shows how they are told.

pub(crate) const MISTAKES: &[(&str, &str)] = &[
    ("broken_toml", "[task.t\nrun = 'a'\n[task.u]\nrun = unquoted\n"),
    ("duplicate_table", "[task.t]\nrun = 'a'\n\n[task.t]\nrun = 'b'\n"),
    ("duplicate_key", "[task.t]\nrun = 'a'\nrun = 'b'\n"),
    (
        "unknown_keys",
        "[tasks.t]\n[task.t]\nrun = 'a'\nretrys = 3\ncolour = 'red'\n[workflow]\nnme = 'x'\n",
    ),
    (
        "misspelt_files",
        "[task.t]\noutput = { o = 'out' }\nrun = 'a {{ outputs.o }}'\n[task.u]\ninptus = { i = 'a' }\n\
         foreach = { x = { from = 't.o' } }\nrun = 'b {{ inputs.i }} {{ x }}'\n[task.v]\n\
         inputs = { i = { from = 't' }, p = 'out' }\nrnu = 'c'\n",
    ),
    (
        "empty_namespaces",
        "[task.t]\nrun = 'a {{ outputs.o }}'\n[task.u]\nrun = 'a {{ inputs.i }}'\n[task.v]\n\
         run = 'a {{ params.p }}'\n[task.w]\ninputs = { i = { from = 't.o' } }\nrun = 'a'\n",
    ),
    (
        "wrong_kinds",
        "[task.t]\nrun = 5\ncores = '2'\nmemory = 4\ntimeout = 30\nretries = 1.5\ncache = 'no'\n\
         inputs = ['a']\noutputs = { o = 5 }\nenv = 'A=b'\nshell = 'bash -c'\nafter = 3\nversion = 2\n",
    ),
    (
        "bad_values",
        "[task.t]\nrun = 'a'\ncores = 0\nmemory = '4G'\ntimeout = '5 fortnights'\n\
         backoff = { min = '2m', max = '1m' }\nexecutor = 'slurm'\nkeep_scratch = 'sometimes'\n",
    ),
    (
        "bad_captures",
        "[task.t]\nrun = 'a > {{ outputs.stdout }}'\nstdout = 'out/t'\n[task.u]\nrun = 'a'\n\
         stdout = 'out/u/'\nstderr = { path = 'out/e', optional = true }\n[task.v]\nrun = 'a'\n\
         outputs = { stderr = 'out/v' }\nstderr = 'out/w'\n[task.w]\nrun = 'a'\n\
         stdout = ['out/x']\n[defaults]\nstdout = 'out/y'\n",
    ),
    (
        "bad_retry_rules",
        "[task.t]\nrun = 'a'\nretry_on = [0, 75, 'x']\nfail_on = [75, 2]\nskip_on = 300\n\
         retry_cost = { 75 = 'half', SIGFOO = 1, timeout = -1, oom = [1], lost = 0.5 }\n[task.u]\n\
         run = 'b'\nretry_cost = 3\n",
    ),
    (
        "bad_containers",
        "[defaults]\ncontainer = 'tool.sif'\n[task.t]\nrun = 'a'\n[task.u]\nrun = 'a'\n\
         container = 'alpine@sha256:12'\n[task.v]\nrun = 'a'\ncontainer = true\n[task.w]\n\
         run = 'a'\ncontainer = '--privileged'\n",
    ),
    (
        "bad_ignored",
        "[task.t]\nrun = 'a'\nenv = { THREADS = 4 }\ncache = { ignore = ['THREAD'] }\n[task.u]\nrun = 'a'\n\
         cache = { ignored = 'x' }\n[task.v]\nrun = 'a'\ncache = { ignore = 'x' }\n",
    ),
    (
        "bad_ranks",
        "[task.t]\nrun = 'a'\nmpi = 8\n[task.u]\nrun = 'a'\nmpi = { nodes = 2, ranks = 8 }\n[task.v]\n\
         run = 'a'\nmpi = { nodes = 3, ranks = 8 }\n[task.w]\nrun = 'a'\nmpi = { ranks = 0, rank = 1 }\n\
         [task.x]\nrun = 'a'\nmpi = { nodes = 1 }\n",
    ),
    (
        "bad_memory",
        "[task.t]\nrun = 'a'\nmemory = { max = '4GiB' }\n[task.u]\nrun = 'a'\n\
         memory = { first = '4GiB', max = '2GiB' }\n[task.v]\nrun = 'a'\n\
         memory = { first = '4', factor = 2 }\n[task.w]\nrun = 'a'\n\
         memory = { first = '1GiB', factor = 1, most = '2GiB' }\n",
    ),
    (
        "bad_slots",
        "[defaults]\nexecutor = 'locl'\n[task.t]\nrun = 'a'\ngpus = -1\ndisk = 5\n\
         priority = 'high'\nexecutor = ['local', 'gpu']\ncache = 'readonly'\n[task.u]\nrun = 'a'\n\
         executor = 3\npriority = 5000000000\n",
    ),
    (
        "run_and_argv",
        "[task.t]\nrun = 'a'\nargv = ['a']\n[task.u]\ncores = 1\n[task.v]\nargv = []\n",
    ),
    (
        "bad_template",
        "[task.t]\nrun = \"echo {{ name \"\n[task.u]\nrun = 'echo {{ name | upcase }}'\n",
    ),
    (
        "one_of_each_kind",
        "[task.a]\noutputs = { o = 'out/{{ zz }}' }\nrun = 'a {{ nope }} {{ inputs.i }}'\n[task.b]\n\
         foreach = { x = { csv = 'none.csv' } }\nrun = 'b {{ x.y }} {{ wrong'\n[task.c]\n\
         inputs = { i = { from = 'a.o' } }\nrun = 'c {{ inputs.j }}'\n",
    ),
    (
        "undefined_names",
        "[workflow]\nparams = { quality = 3 }\n[task.t]\nforeach = { row = [{ sample = 'a' }] }\n\
         inputs = { reads = 'a' }\noutputs = { o = 'out/{{ inputs.reads }}' }\nrun = 'a'\n[task.u]\n\
         run = \"\"\"\n\ta \\\"{{ qualty }}\\\"\n  b {{ params.x }}\"\"\"\n[task.v]\n\
         foreach = { row = [{ sample = 'a' }] }\nargv = ['a', '{{ row.smple }}', '{{ row }}']\n",
    ),
    (
        "undefined_in_dormant",
        "[task.g]\noutputs = { l = 'l' }\nrun = 'a'\n[task.t]\nforeach = { x = { from = 'g.l' } }\n\
         inputs = { i = 'a' }\nrun = 'b {{ inputs.j }} {{ y }} {{ x }}'\n",
    ),
    (
        "double_producer",
        "[task.t]\noutputs = { o = 'out/a' }\nrun = 'a'\n[task.u]\noutputs = { o = './out//a' }\n\
         run = 'a'\n",
    ),
    (
        "double_producer_family",
        "[task.t]\nforeach = { x = [1, 2] }\noutputs = { o = 'out' }\nrun = 'a'\n",
    ),
    (
        "output_below_output",
        "[task.t]\noutputs = { o = 'out/' }\nrun = 'a'\n[task.u]\noutputs = { o = 'out/x' }\nrun = 'a'\n",
    ),
    (
        "input_inside_output",
        "[task.t]\noutputs = { o = 'out/' }\nrun = 'a'\n[task.u]\ninputs = { o = 'out/x' }\nrun = 'a'\n",
    ),
    (
        "collision",
        "[task.t]\ninputs = { a = 'https://h/x', b = 'https://g/x' }\nrun = 'a'\n[task.u]\n\
         inputs = { a = 'x', b = 'x/y' }\nrun = 'a'\n",
    ),
    (
        "self_reference",
        "[task.t]\ninputs = { a = 'x' }\noutputs = { b = 'x' }\nrun = 'a'\n[task.u]\n\
         inputs = { a = { from = 'u.b' } }\noutputs = { b = 'y' }\nrun = 'a'\n",
    ),
    (
        "cycle",
        "[task.a]\nafter = ['b']\nrun = 'a'\n[task.b]\nafter = ['c']\nrun = 'a'\n[task.c]\n\
         after = ['a']\nrun = 'a'\n",
    ),
    (
        "unknown_from",
        "[task.align]\noutputs = { bam = 'a', bai = 'b' }\nrun = 'a'\n[task.u]\ninputs = { a = { \
         from = 'algn.bam' }, b = { from = 'align.bm' }, c = { from = 'align' } }\nafter = ['x']\n\
         run = 'a'\n",
    ),
    (
        "unknown_instance",
        "[task.a]\nforeach = { s = ['x', 'y'] }\noutputs = { o = '{{ s }}' }\nrun = 'a'\n[task.u]\n\
         inputs = { a = { from = 'a[s=z].o' } }\nrun = 'a'\n",
    ),
    (
        "missing_tables",
        "[task.t]\nforeach = { r = { csv = 'none.csv' } }\nrun = 'a'\n[task.u]\nforeach = { r = { \
         csv = 'bad.csv' } }\nrun = 'a'\n[task.v]\nforeach = { r = { csv = 'good.csv' } }\n\
         run = 'a {{ r.smple }}'\n",
    ),
    (
        "bad_foreach",
        "[task.t]\nforeach = { x = 3, y = { range = [0, 5, 0] }, name = ['a'], 'a-b' = [1], z = { \
         csvv = 'a' }, w = [[1]] }\nrun = 'a'\n[task.u]\nforeach = { zip = { a = [1, 2], b = [1] } }\n\
         run = 'a'\n[task.v]\nforeach = { x = ['a', 'a'] }\nrun = 'a'\n[task.w]\nforeach = {}\nrun = 'a'\n",
    ),
    (
        "too_many",
        "[task.t]\nforeach = { x = { range = 100000 }, y = { range = 100000 } }\nrun = 'a'\n",
    ),
    (
        "hostile_outputs",
        "[task.t]\noutputs = { a = '../x', b = 'a/../../x', c = \"a\\nb\", d = \"a\\u0000\", e = '', \
         f = '.keelboat/memo' }\nrun = 'a'\n",
    ),
    (
        "hostile_names",
        "[task.'a/b']\nrun = 'a'\n[task.\"a\\nb\"]\nrun = 'a'\n[task.t]\ninputs = { '../x' = 'a' }\n\
         env = { 'A=B' = 'c' }\nrun = \"a\\u0000b\"\n",
    ),
    (
        "bad_addresses",
        "[task.t]\ninputs = { a = 'htp://h/x', b = { url = 'x' }, c = 'https:///x', d = { path = 'x', \
         url = 'https://h' }, e = { as = 'x' }, f = { urls = [] }, g = { path = 'a', as = '../x' }, \
         h = { url = 'https://h/x', sha256 = '123' } }\noutputs = { o = { path = 'o', to = 'htp://b/k' \
         }, p = { to = 'x' } }\nrun = 'a'\n",
    ),
    (
        "addresses_without_a_colon",
        "[task.t]\ninputs = { a = 'sftp//h/x', b = { url = 'https:/h/x' }, c = 's3:b/k', \
         d = 'zip:ftp//h/a.zip!/m' }\n\
         outputs = { o = { path = 'o', to = 'sftp//ann@h/x' }, p = 's3://b/k', q = { path = 'q', to = \
         '.keelboat/q' } }\nrun = 'a'\n",
    ),
    (
        "sent_to_one_place",
        "[task.t]\noutputs = { o = { path = 'o', to = 'sftp://h/a%20b' } }\nrun = 'a'\n[task.u]\n\
         outputs = { o = { path = 'p', to = 'SFTP://H/a%20b/' } }\nrun = 'a'\n[task.v]\n\
         foreach = { x = [1, 2] }\noutputs = { o = { path = 'v{{ x }}', to = 's3://b/v' } }\n\
         run = 'a'\n",
    ),
    (
        "sent_to_what_is_written",
        "[task.t]\noutputs = { o = 'out/a' }\nrun = 'a'\n[task.u]\n\
         outputs = { o = { path = 'p', to = './out//a' } }\nrun = 'a'\n[task.v]\n\
         outputs = { o = { path = 'v', to = 'v' } }\nrun = 'a'\n",
    ),
    (
        "sent_below_another",
        "[task.t]\noutputs = { o = 'out/' }\nrun = 'a'\n[task.u]\n\
         outputs = { o = { path = 'p', to = 'out/p' } }\nrun = 'a'\n[task.v]\n\
         outputs = { o = { path = 'v/', to = 'sftp://h/v' }, p = { path = 'w', to = 'sftp://h/v/w' } }\n\
         run = 'a'\n[task.w]\noutputs = { o = { path = 'x/', to = 's3://b/x' }, p = { path = 'y', to = \
         's3://b/x/y' } }\nrun = 'a'\n",
    ),
    (
        "sent_to_the_file",
        "[task.t]\noutputs = { o = { path = 'o', to = './flow.toml' } }\nrun = 'a'\n",
    ),
    (
        "bad_checkpoints",
        "[defaults]\ncheckpoint_every = '5m'\n[task.a]\nrun = 'a'\ncheckpoint = '/state'\n[task.b]\n\
         run = 'a'\ncheckpoint = 'state/../..'\n[task.c]\nrun = 'a'\ncheckpoint = './'\n[task.d]\n\
         run = 'a'\ncheckpoint = true\ncheckpoint_every = '10ms'\n[task.e]\nrun = 'a'\n\
         checkpoint_every = '1h'\n[task.f]\nrun = 'a'\ncheckpoint = '{{ name }}'\n",
    ),
    (
        "checkpoints_in_the_way",
        "[task.a]\nrun = 'a'\ninputs = { x = 'state' }\ncheckpoint = 'state/'\n[task.b]\nrun = 'a'\n\
         outputs = { x = 'state/x' }\ncheckpoint = 'state'\n[task.c]\nrun = 'a'\noutputs = { x = 'out/' }\n\
         checkpoint = './out/state'\n[task.d]\nrun = 'a'\ninputs = { u = 'https://h/state' }\n\
         checkpoint = 'state'\n",
    ),
    ("bad_includes", "include = ['gone.toml', 'loop.toml', 'dup.toml']\n[task.t]\nrun = 'a'\n"),
    (
        "writes_dup",
        "include = ['dup.toml']\n[task.u]\noutputs = { o = './/dup.toml' }\nrun = 'a'\n",
    ),
];
