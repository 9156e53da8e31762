# Source: ascend/exceptions.py
from ascend.exceptions import (
    AscendError, # Base exception
    AuthenticationError, # Invalid/expired API key
    AuthorizationDeniedError, # Action denied by policy
    RateLimitError, # Too many requests
    TimeoutError, # Request timeout
    ValidationError, # Invalid input
    NetworkError, # Connection failed
    ServerError, # 5xx server error
    NotFoundError, # Resource not found
    ConflictError # Resource conflict
)
