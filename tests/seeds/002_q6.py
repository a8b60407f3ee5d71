import multiprocessing

def print_number(n):
    """Function to print a given number"""
    print(f"Process {multiprocessing.current_process().name} - Number: {n}")

if __name__ == "__main__":
    numbers = [10, 20, 30, 40]  # Numbers to print
    processes = []

    # Creating 4 processes
    for i in range(4):
        p = multiprocessing.Process(target=print_number, args=(numbers[i],), name=f"Process-{i+1}")
        processes.append(p)
        p.start()

    # Waiting for all processes to complete
    for p in processes:
        p.join()

    print("Main process finished.")
