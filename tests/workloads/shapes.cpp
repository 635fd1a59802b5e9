// A template in a namespace, an operator and a lambda, each computing: names to demangle.
#include <chrono>

namespace shapes {

static volatile unsigned long sink;

template <typename Number> struct Area {
	__attribute__((noipa)) Number measure(Number n)
	{
		for (long i = 0; i < 500000; i++)
			sink += i;
		return n;
	}
	__attribute__((noipa)) Number operator()(int n)
	{
		for (long i = 0; i < 500000; i++)
			sink += i;
		return n;
	}
};

} // namespace shapes

int main()
{
	using clock = std::chrono::steady_clock;
	shapes::Area<double> area;

	for (auto end = clock::now() + std::chrono::milliseconds(500); clock::now() < end;) {
		area.measure(1.0);
		area(2);
	}
	return 0;
}
