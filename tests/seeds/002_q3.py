# What 002_q3_broken.py evidently means: abc is the name of a function, i a number.
import multiprocessing

def abc(i):
    print(f"Process {i}")

if __name__ == "__main__":
    i = 1
    m = multiprocessing.Process(target = abc, args = (i,))
    m.start()
    m.join()
