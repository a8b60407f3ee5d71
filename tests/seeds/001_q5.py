import multiprocessing

def worker_function(argument):
    """Function to be executed by worker processes."""
    result = argument ** 2
    return result

if __name__ == "__main__":
    # Create a Pool of worker processes
    with multiprocessing.Pool(processes=4) as pool:  # Adjust the number of processes as needed
        # Define a list of input values
        inputs = [1, 2, 3, 4, 5]

        # Apply the worker function to each input value using the Pool
        results = pool.map(worker_function, inputs)

    # Print the results
    print("Results:", results)
