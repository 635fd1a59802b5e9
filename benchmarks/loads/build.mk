# A build of many short processes: OBJECTS generated C files, compiled and linked.

OBJECTS := $(foreach n,$(shell seq $(COUNT)),part$(n).o)

libparts.so: $(OBJECTS)
	gcc -shared -o $@ $^

part%.o: part%.c
	gcc -O2 -fPIC -c -o $@ $<

part%.c: generate
	./generate $* > $@

generate: $(SOURCE)
	gcc -O1 -g0 -fno-omit-frame-pointer -o $@ $<

.PRECIOUS: part%.c
