import multiprocessing

def print_number(number):
    print(f"Process ID: {multiprocessing.current_process().pid} - Number: {number}")

if __name__ == "__main__":
    numbers = [10, 20, 30, 40]  # Numbers to print
    processes = []

    # Create and start processes
    for number in numbers:
        process = multiprocessing.Process(target=print_number, args=(number,))
        processes.append(process)
        process.start()

    # Wait for all processes to complete
    for process in processes:
        process.join()

    print("All processes completed!")
