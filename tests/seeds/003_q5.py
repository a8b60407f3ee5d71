import multiprocessing

def square(x):
    return x * x

if __name__ == "__main__":
    # Creating a pool with 3 worker processes
    with multiprocessing.Pool(processes=3) as pool:
        # Applying the square function to a list of numbers
        result = pool.map(square, [1, 2, 3, 4, 5])
        print("Result:", result)
