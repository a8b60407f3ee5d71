import multiprocessing

def worker_function():
    print("Process is running!")

if __name__ == "__main__":
    process = multiprocessing.Process(target=worker_function)
    process.start()
    process.join()
