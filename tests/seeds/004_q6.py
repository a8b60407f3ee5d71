import multiprocessing

def print_number(number):
    print("Process", number, "prints", number)

if __name__ == "__main__":
    processes = []

    for i in range(1, 5):
        p = multiprocessing.Process(target=print_number, args=(i,))
        processes.append(p)
        p.start()

    for p in processes:
        p.join()

    print("All processes completed.")
