// Throws through a recursion, for so many milliseconds: exceptions are unwound while we unwind.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

static int descend(int depth, const std::string &text)
{
	if (depth == 0)
		throw std::runtime_error(text);
	std::vector<int> numbers(20);
	std::generate(numbers.begin(), numbers.end(), [&] { return depth; });
	std::sort(numbers.begin(), numbers.end());
	return descend(depth - 1, text) + numbers[0];
}

int main(int, char **argv)
{
	const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(std::atoi(argv[1]));
	long caught = 0;
	while (std::chrono::steady_clock::now() < end) {
		try {
			descend(20, "a text that is too long to lie in the string itself");
		} catch (const std::exception &error) {
			caught += error.what()[0];
		}
	}
	return caught == 0;
}
