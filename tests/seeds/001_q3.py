import multiprocessing
import os

def worker():
    """Function to be executed by the child process."""
    process_id = os.getpid()
    print(f"Worker process ID: {process_id}")

if __name__ == "__main__":
    # Create a multiprocessing Process object
    process = multiprocessing.Process(target=worker)

    # Start the process
    process.start()

    # Wait for the process to finish
    process.join()

    print("Main process is done.")
