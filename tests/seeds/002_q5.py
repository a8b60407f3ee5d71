# What 002_q5_broken.py evidently means, and its output printed.
import multiprocessing

def square(n):
    return n**2

if __name__ == "__main__":
    with multiprocessing.Pool(processes = 5) as pool:
        output = pool.map(square, [1,2,3])
    print(output)
