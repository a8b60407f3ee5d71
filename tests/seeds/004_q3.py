import multiprocessing

def my_process():
    print("This is a child process.")

if __name__ == "__main__":
    p = multiprocessing.Process(target=my_process)
    p.start()
    p.join()
    print("Parent process completed.")
