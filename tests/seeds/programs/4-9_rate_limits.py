import time

def api_call_with_retry(func):
    response = func()
    if response.status_code == 429:
        retry_after = int(response.headers.get('Retry-After', 60))
        time.sleep(retry_after)
        return func()
    return response
