/*
 * A JVM tool that tells of compiled methods in a jitdump: java -agentpath:libjvm_agent.so=DIRECTORY writes
 * DIRECTORY/jit-PID.dump.  Methods are named Class.method and have source lines, the JVM's own code is named as
 * the JVM calls it.
 */
#include "workload.h"
#include <sys/mman.h>
#include <sys/uio.h>
#include <fcntl.h>
#include <jvmti.h>
#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int dump;
static uint64_t loads;

static int write_all(const struct iovec *parts, int count)
{
	ssize_t size = 0;

	for (int i = 0; i < count; i++)
		size += parts[i].iov_len;
	return writev(dump, parts, count) == size ? 0 : -1;
}

static void load(const char *name, const void *code, jint size)
{
	struct {
		uint32_t id, size;
		uint64_t ts_ns;
		uint32_t pid, tid;
		uint64_t vma, start, code_size, index;
	} record = { .pid = getpid(), .tid = gettid(), .vma = (uint64_t)code, .start = (uint64_t)code, .code_size = size };
	struct iovec parts[] = { { &record, sizeof(record) },
				 { (void *)name, strlen(name) + 1 },
				 { (void *)code, size } };

	record.size = sizeof(record) + strlen(name) + 1 + size;
	record.ts_ns = clock_ns(CLOCK_MONOTONIC);
	record.index = loads++;
	if (write_all(parts, 3))
		abort();
}

/* The line of the bytecode at `location`, 0 where it has none. */
static uint32_t line_of(jlocation location, const jvmtiLineNumberEntry *table, jint count)
{
	uint32_t line = 0;
	jlocation best = -1;

	for (jint i = 0; i < count; i++) {
		if (table[i].start_location <= location && table[i].start_location > best) {
			best = table[i].start_location;
			line = table[i].line_number;
		}
	}
	return line;
}

static void write_lines(const void *code, const char *file, const jvmtiAddrLocationMap *map, jint map_length,
			const jvmtiLineNumberEntry *table, jint count)
{
	struct {
		uint32_t id, size;
		uint64_t ts_ns, code, entries;
	} record = { .id = 2, .ts_ns = clock_ns(CLOCK_MONOTONIC), .code = (uint64_t)code, .entries = map_length };
	struct {
		uint64_t address;
		uint32_t line, column;
	} entry = { 0 };

	record.size = sizeof(record) + map_length * (sizeof(entry) + strlen(file) + 1);
	if (write_all((struct iovec[]){ { &record, sizeof(record) } }, 1))
		abort();
	for (jint i = 0; i < map_length; i++) {
		entry.address = (uint64_t)map[i].start_address;
		entry.line = line_of(map[i].location, table, count);
		if (write_all((struct iovec[]){ { &entry, sizeof(entry) }, { (void *)file, strlen(file) + 1 } }, 2))
			abort();
	}
}

static void JNICALL on_method(jvmtiEnv *jvmti, jmethodID method, jint size, const void *code, jint map_length,
			      const jvmtiAddrLocationMap *map, const void *info)
{
	char *name, *class_name, *file, full[1024];
	jvmtiLineNumberEntry *table;
	jclass class;
	jint count;

	(void)info;
	if ((*jvmti)->GetMethodName(jvmti, method, &name, NULL, NULL) ||
	    (*jvmti)->GetMethodDeclaringClass(jvmti, method, &class) ||
	    (*jvmti)->GetClassSignature(jvmti, class, &class_name, NULL))
		return;
	/* Lsome/Class; */
	snprintf(full, sizeof(full), "%.*s.%s", (int)strlen(class_name) - 2, class_name + 1, name);
	pthread_mutex_lock(&lock);
	if (map && !(*jvmti)->GetSourceFileName(jvmti, class, &file) &&
	    !(*jvmti)->GetLineNumberTable(jvmti, method, &count, &table)) {
		write_lines(code, file, map, map_length, table, count);
		(*jvmti)->Deallocate(jvmti, (unsigned char *)table);
		(*jvmti)->Deallocate(jvmti, (unsigned char *)file);
	}
	load(full, code, size);
	pthread_mutex_unlock(&lock);
	(*jvmti)->Deallocate(jvmti, (unsigned char *)name);
	(*jvmti)->Deallocate(jvmti, (unsigned char *)class_name);
}

static void JNICALL on_code(jvmtiEnv *jvmti, const char *name, const void *code, jint size)
{
	(void)jvmti;
	pthread_mutex_lock(&lock);
	load(name, code, size);
	pthread_mutex_unlock(&lock);
}

static int open_dump(const char *directory)
{
	uint32_t header[] = { 0x4a695444, 1, 40, 0, 0, getpid() };
	uint64_t rest[] = { clock_ns(CLOCK_MONOTONIC), 0 };
	char path[4096];

	snprintf(path, sizeof(path), "%s/jit-%d.dump", directory, getpid());
	dump = open(path, O_CREAT | O_TRUNC | O_RDWR, 0666);
	if (dump < 0 || write_all((struct iovec[]){ { header, sizeof(header) }, { rest, sizeof(rest) } }, 2))
		return -1;
	/* The mark by which profilers find the dump. */
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, dump, 0) == MAP_FAILED ? -1 : 0;
}

JNIEXPORT jint JNICALL Agent_OnLoad(JavaVM *jvm, char *options, void *reserved)
{
	jvmtiCapabilities wanted = { .can_generate_compiled_method_load_events = 1,
				     .can_get_source_file_name = 1,
				     .can_get_line_numbers = 1 };
	jvmtiEventCallbacks callbacks = { .CompiledMethodLoad = on_method, .DynamicCodeGenerated = on_code };
	jvmtiEnv *jvmti;

	(void)reserved;
	if (!options || open_dump(options) || (*jvm)->GetEnv(jvm, (void **)&jvmti, JVMTI_VERSION_1) ||
	    (*jvmti)->AddCapabilities(jvmti, &wanted) ||
	    (*jvmti)->SetEventCallbacks(jvmti, &callbacks, sizeof(callbacks)) ||
	    (*jvmti)->SetEventNotificationMode(jvmti, JVMTI_ENABLE, JVMTI_EVENT_COMPILED_METHOD_LOAD, NULL) ||
	    (*jvmti)->SetEventNotificationMode(jvmti, JVMTI_ENABLE, JVMTI_EVENT_DYNAMIC_CODE_GENERATED, NULL))
		return JNI_ERR;
	return JNI_OK;
}
