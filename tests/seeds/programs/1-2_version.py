import ascend
print(f"ASCEND SDK Version: {ascend.__version__}")
