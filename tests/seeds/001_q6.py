import multiprocessing

def print_number(number):
    """Function to print a number."""
    print(f"Process ID: {multiprocessing.current_process().pid}, Number: {number}")

if __name__ == "__main__":
    # Define numbers to be printed
    numbers = [1, 2, 3, 4]

    # Create and start a process for each number
    processes = []
    for num in numbers:
        process = multiprocessing.Process(target=print_number, args=(num,))
        processes.append(process)
        process.start()

    # Wait for all processes to finish
    for process in processes:
        process.join()

    print("All processes have finished.")
