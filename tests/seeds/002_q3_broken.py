# The original as it was written. Python stops at the misspelt module name; behind it wait i, which
# nothing defines, and a string as target, which nothing can call.
import multiprocessing

if __name__ == "__main__":
    m = mutiprocessing.Process(target = "abc", args = (i,))
    m.start()
    m.join()
