# The original as it was written. Python stops at the import, which is no name; behind it wait
# another misspelt name, pool for Pool, process for processes, a missing "as pool" and no print.
import multi[processing

def square(n):
    return n**2

if __name__ == "__main__":
    with mutiprocessing.pool(process = 5):
        output = pool.map(square, [1,2,3])
