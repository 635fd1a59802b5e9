#!/usr/bin/env bash
# A small real load for the demo: a compiler with many short processes, an interpreter, a compressor.
# It runs until it is killed, a minute at most.

source "$(dirname "$0")/lib.sh"
DIRECTORY=build/demo
mkdir -p "$DIRECTORY"
END=$((SECONDS + 60))

write_source() {
	local number
	printf '#include <math.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n'
	for number in $(seq 200); do
		printf 'double f%d(const char *s, double x) {\n' "$number"
		printf '\tfor (size_t i = 0; i < strlen(s); i++) x = sin(x + s[i]) * %d + fabs(x);\n' "$number"
		printf '\treturn x > %d ? strtod(s, NULL) : printf("%%s %%f", s, x);\n}\n' "$number"
	done
}

compile() { while [ $SECONDS -lt $END ]; do gcc -O2 -c "$DIRECTORY/load.c" -o "$DIRECTORY/load.o"; done; }

compress() { while [ $SECONDS -lt $END ]; do gzip -9 <"$DIRECTORY/load.o" >"$DIRECTORY/load.gz"; done; }

parse() {
	timeout 60 python3 - <<-'END'
		import ast, collections, pathlib, sysconfig

		library = pathlib.Path(sysconfig.get_path("stdlib"))
		while True:
		    kinds = collections.Counter()
		    for path in sorted(library.glob("*.py")):
		        kinds.update(type(node).__name__ for node in ast.walk(ast.parse(path.read_bytes())))
	END
}

write_source >"$DIRECTORY/load.c"
gcc -O2 -c "$DIRECTORY/load.c" -o "$DIRECTORY/load.o"
compile &
compress &
parse &
wait
